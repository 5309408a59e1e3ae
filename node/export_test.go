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
