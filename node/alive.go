package node

// Alive returns once every lock was free that clients wait for: it does not return from a node that is stuck.
func (s *Server) Alive() {
	for _, lock := range []interface {
		Lock()
		Unlock()
	}{&s.sessionsMu, &s.roomsMu, &s.streamsMu, &s.addresses.mu} {
		lock.Lock()
		//lint:ignore SA2001 that it was free is all
		lock.Unlock()
	}
}
