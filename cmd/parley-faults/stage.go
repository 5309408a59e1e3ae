package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// A stage is what a row runs on: as much of a testing.TB as rows and bustest's servers need.
type stage struct {
	testing.TB
	name string
	errw io.Writer // what is logged

	mu       sync.Mutex
	failed   []string // guarded by mu; why
	cleanups []func() // guarded by mu; run in reverse
}

// perform runs f as the testing package runs a test, and gives why it failed.
func perform(name string, errw io.Writer, f func(testing.TB)) (failed []string) {
	s := &stage{name: name, errw: errw}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.clean()
		f(s)
	}()
	<-done
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *stage) clean() {
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		if n == 0 {
			s.mu.Unlock()
			return
		}
		f := s.cleanups[n-1]
		s.cleanups = s.cleanups[:n-1]
		s.mu.Unlock()
		f()
	}
}

func (s *stage) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *stage) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failed) > 0
}

func (s *stage) Errorf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, fmt.Sprintf(format, args...))
}

func (s *stage) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}

// Logf writes each line with the row's name before it.
func (s *stage) Logf(format string, args ...any) {
	said := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	fmt.Fprintf(s.errw, "%s: %s\n", s.name, strings.ReplaceAll(said, "\n", "\n    "))
}

func (s *stage) Error(args ...any)                { s.Errorf("%s", fmt.Sprint(args...)) }
func (s *stage) Fatal(args ...any)                { s.Fatalf("%s", fmt.Sprint(args...)) }
func (s *stage) Skip(args ...any)                 { s.Fatal(args...) }
func (s *stage) Skipf(format string, args ...any) { s.Fatalf(format, args...) }
func (s *stage) Log(args ...any)                  { s.Logf("%s", fmt.Sprint(args...)) }
func (s *stage) Name() string                     { return s.name }
func (s *stage) Helper()                          {}
