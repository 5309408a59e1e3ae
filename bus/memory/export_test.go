package memory

import "time"

// SetClock replaces the clock, before the first use.
func (m *Store) SetClock(now func() time.Time) { m.now = now }

// Sweep does what the timer does.
func (m *Store) Sweep() { m.sweep() }

// Rooms counts the rooms that are not forgotten.
func (m *Store) Rooms() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.rooms)
}

// Buckets counts the buckets that are not forgotten.
func (m *Store) Buckets() int {
	m.board.mu.Lock()
	defer m.board.mu.Unlock()
	return len(m.board.buckets)
}

// Counted counts what is counted of holders.
func (m *Store) Counted() int {
	m.board.mu.Lock()
	defer m.board.mu.Unlock()
	return len(m.board.counts)
}
