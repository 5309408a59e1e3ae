package node

import (
	"sync"
	"testing"
	"time"
)

func TestANodeThatIsStuckDoesNotSayThatItIsAlive(t *testing.T) {
	t.Parallel()
	var s Server
	s.Alive()
	for name, lock := range map[string]*sync.Mutex{
		"sessions": &s.sessionsMu, "rooms": &s.roomsMu, "streams": &s.streamsMu, "addresses": &s.addresses.mu,
	} {
		lock.Lock()
		said := make(chan struct{})
		go func() {
			s.Alive()
			close(said)
		}()
		select {
		case <-said:
			t.Errorf("alive, though the %s are locked", name)
		case <-time.After(50 * time.Millisecond): // as long as it is asked
		}
		lock.Unlock()
		<-said
	}
}
