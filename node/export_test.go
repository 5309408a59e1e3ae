package node

// MostThatWaits is how many bytes wait for the client for which most do.
func MostThatWaits(s *Server) (most int) {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	for _, sess := range s.sessions {
		most = max(most, sess.conn.Waiting())
	}
	return most
}

// HoldFlushes keeps a room from being flushed until release, which gives how many bytes of messages waited by then.
func HoldFlushes(s *Server, name string) (release func() int) {
	s.roomsMu.Lock()
	r := s.rooms[name]
	s.roomsMu.Unlock()
	r.mu.Lock()
	return func() (bytes int) {
		defer r.mu.Unlock()
		r.inbox.mu.Lock()
		defer r.inbox.mu.Unlock()
		for _, it := range r.inbox.items {
			bytes += len(it.msg.Body)
		}
		return bytes
	}
}
