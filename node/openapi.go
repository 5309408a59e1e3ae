package node

import (
	_ "embed"
	"net/http"

	"parley/node/wire"
)

// openAPIText describes what is served under /v1. A test holds it to what is asked and answered.
//
//go:embed openapi.json
var openAPIText []byte

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) *wire.Error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Access-Control-Allow-Origin", "*") // it is the same for everybody
	_, _ = w.Write(openAPIText)
	return nil
}
