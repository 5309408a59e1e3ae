package node

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"parley/node/wire"
)

// A countedBody is a request's body that counts those that are expected when it is read.
type countedBody struct {
	io.Reader
	s    *Server
	most int
}

func (b *countedBody) Read(p []byte) (int, error) {
	b.s.bodies.mu.Lock()
	b.most = max(b.most, len(b.s.bodies.coming))
	b.s.bodies.mu.Unlock()
	return b.Reader.Read(p)
}

func TestABodyThatHasComeIsForgotten(t *testing.T) {
	s := roomOf(t, 0).srv
	for name, text := range map[string]string{"that is taken": `{"text":"x"}`, "that is too large": strings.Repeat("x", wire.MaxFrame+1)} {
		body := &countedBody{Reader: strings.NewReader(text), s: s}
		s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/rooms/lobby/messages", body))
		if body.most != 1 || len(s.bodies.coming) != 0 {
			t.Errorf("a body %s: %d are expected while it is read, and %d afterwards", name, body.most, len(s.bodies.coming))
		}
	}
}
