package token

// Forget empties the cache.
func (v *Verifier) Forget() {
	v.known.mu.Lock()
	defer v.known.mu.Unlock()
	clear(v.known.good)
}
