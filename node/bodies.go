package node

import (
	"net/http"
	"sync"
	"time"
)

// bodies are the requests over HTTP whose body is still to come.
type bodies struct {
	mu      sync.Mutex
	coming  map[*http.ResponseController]struct{} // guarded by mu
	hurried bool                                  // guarded by mu
}

// bodyHurry is how long a body may still take once the node drains.
const bodyHurry = time.Second

// expect has a body arrive in time. The caller says when it has.
func (b *bodies) expect(rc *http.ResponseController, d time.Duration) (arrived func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hurried {
		d = min(d, bodyHurry)
	}
	rc.SetReadDeadline(time.Now().Add(d))
	if b.coming == nil {
		b.coming = make(map[*http.ResponseController]struct{})
	}
	b.coming[rc] = struct{}{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.coming, rc)
	}
}

// hurry ends the patience with all of them.
func (b *bodies) hurry() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hurried = true
	for rc := range b.coming {
		rc.SetReadDeadline(time.Now().Add(bodyHurry))
	}
}

// answerInTime gives up an answer that is not read: after the time for the request, what waits for the client has StallTimeout to leave.
func (s *Server) answerInTime(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.MessageWait + busTimeout + s.cfg.StallTimeout))
		h.ServeHTTP(w, r)
	})
}
