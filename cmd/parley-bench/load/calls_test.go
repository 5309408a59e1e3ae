package load

import (
	"errors"
	"net"
	"sync"
	"testing"
)

// served starts methods at the other end of a pipe. done is closed once they are not served any more.
func served(methods map[string]method, over func()) (c *caller, done chan struct{}) {
	near, far := net.Pipe()
	done = make(chan struct{})
	go func() {
		defer close(done)
		serveCalls(far, methods, over)
	}()
	return newCaller(near), done
}

func TestCallsAreAnsweredInAnyOrder(t *testing.T) {
	last := make(chan struct{})
	c, done := served(map[string]method{
		"Double": methodOf(func(n int, twice *int) error {
			if n == 0 { // the first call waits for all others
				<-last
			}
			*twice = 2 * n
			return nil
		}),
		"Fail": methodOf(func(None, *None) error { return errors.New("it failed") }),
	}, func() {})
	var first, others sync.WaitGroup
	for n := range 100 {
		wg := &others
		if n == 0 {
			wg = &first
		}
		wg.Go(func() {
			var twice int
			if err := c.Call("Double", n, &twice); err != nil || twice != 2*n {
				t.Errorf("twice %d is %d, %v", n, twice, err)
			}
		})
	}
	others.Wait()
	close(last)
	first.Wait()
	for name, want := range map[string]string{"Fail": "it failed", "Nothing": "a worker has no method Nothing"} {
		if err := c.Call(name, None{}, new(None)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Call("Double", "a string", new(int)); err == nil {
		t.Error("a string was doubled")
	}
	c.Close()
	<-done
}

// Closing the connection ends the calls under way at both ends, and those to come.
func TestCallsEndWithTheConnection(t *testing.T) {
	began, over := make(chan struct{}), make(chan struct{})
	c, done := served(map[string]method{
		"Wait": methodOf(func(None, *None) error {
			close(began)
			<-over
			return nil
		}),
	}, func() { close(over) })
	ended := make(chan error, 1)
	go func() { ended <- c.Call("Wait", None{}, new(None)) }()
	<-began
	c.Close()
	if err := <-ended; !errors.Is(err, errNoWorker) {
		t.Errorf("the call under way ended with %v", err)
	}
	<-done
	if err := c.Call("Wait", None{}, new(None)); !errors.Is(err, errNoWorker) {
		t.Errorf("a call afterwards ended with %v", err)
	}
}

// So does a worker that dies.
func TestCallsEndWithTheWorker(t *testing.T) {
	near, far := net.Pipe()
	c := newCaller(near)
	defer c.Close()
	go func() {
		far.Read(make([]byte, 1))
		far.Close()
	}()
	if err := c.Call("Wait", None{}, new(None)); !errors.Is(err, errNoWorker) {
		t.Errorf("it ended with %v", err)
	}
}
