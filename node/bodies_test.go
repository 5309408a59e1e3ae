package node

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestABodyThatHasComeIsForgotten(t *testing.T) {
	var b bodies
	for range 3 {
		arrived := b.expect(http.NewResponseController(httptest.NewRecorder()), time.Minute)
		if len(b.coming) != 1 {
			t.Errorf("%d bodies are expected", len(b.coming))
		}
		arrived()
	}
	if len(b.coming) != 0 {
		t.Errorf("%d bodies are expected still", len(b.coming))
	}
}
