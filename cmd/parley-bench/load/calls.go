package load

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io"
	"sync"
)

// Calls from one process to another, over any connection. This is as much of net/rpc as is needed here: that finds methods
// by name at run time, for which the linker would keep every method in the program, a third of its size.

// A letter is a call, or the answer to it.
type letter struct {
	ID     uint64
	Method string // of a call
	Value  []byte // in gob: the argument of a call, or the result
	Err    string // of an answer, or ""
}

// A caller calls the methods that are served at the other end of a connection. Calls may be made concurrently.
type caller struct {
	conn io.ReadWriteCloser

	mu      sync.Mutex
	enc     *gob.Encoder           // guarded by mu
	last    uint64                 // guarded by mu: the newest call's ID
	waiting map[uint64]chan letter // guarded by mu; nil once the connection has ended
}

// newCaller reads the answers until the connection ends.
func newCaller(conn io.ReadWriteCloser) *caller {
	c := &caller{conn: conn, enc: gob.NewEncoder(conn), waiting: make(map[uint64]chan letter)}
	go c.read()
	return c
}

// Close ends the connection, and all calls.
func (c *caller) Close() error { return c.conn.Close() }

var errNoWorker = errors.New("the worker is gone")

func (c *caller) read() {
	dec := gob.NewDecoder(c.conn)
	for {
		var answer letter
		err := dec.Decode(&answer)
		c.mu.Lock()
		if err != nil {
			for _, ch := range c.waiting {
				close(ch)
			}
			c.waiting = nil
			c.mu.Unlock()
			return
		}
		if ch := c.waiting[answer.ID]; ch != nil {
			ch <- answer
			delete(c.waiting, answer.ID)
		}
		c.mu.Unlock()
	}
}

// Call calls a method and waits for its result.
func (c *caller) Call(method string, arg, result any) error {
	value, err := pack(arg)
	if err != nil {
		return err
	}
	ch := make(chan letter, 1)
	if err := c.send(letter{Method: method, Value: value}, ch); err != nil {
		return err
	}
	answer, ok := <-ch
	switch {
	case !ok:
		return errNoWorker
	case answer.Err != "":
		return errors.New(answer.Err)
	}
	return unpack(answer.Value, result)
}

func (c *caller) send(l letter, answer chan letter) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		return errNoWorker
	}
	c.last++
	l.ID = c.last
	c.waiting[l.ID] = answer
	if err := c.enc.Encode(l); err != nil {
		delete(c.waiting, l.ID)
		return errNoWorker
	}
	return nil
}

// A method is what can be called.
type method func(arg []byte) (result []byte, err error)

func methodOf[A, R any](f func(A, *R) error) method {
	return func(value []byte) ([]byte, error) {
		var (
			arg    A
			result R
		)
		if err := unpack(value, &arg); err != nil {
			return nil, err
		}
		if err := f(arg, &result); err != nil {
			return nil, err
		}
		return pack(result)
	}
}

// serveCalls answers calls, several at a time, until the connection ends. Then it calls over, which is to end those under
// way, and waits for them.
func serveCalls(conn io.ReadWriteCloser, methods map[string]method, over func()) {
	defer conn.Close()
	var (
		calls sync.WaitGroup
		mu    sync.Mutex
		enc   = gob.NewEncoder(conn) // guarded by mu
		dec   = gob.NewDecoder(conn)
	)
	defer calls.Wait()
	defer over()
	for {
		var call letter
		if dec.Decode(&call) != nil {
			return
		}
		calls.Go(func() {
			answer := letter{ID: call.ID}
			var err error
			if f := methods[call.Method]; f == nil {
				err = errors.New("a worker has no method " + call.Method)
			} else {
				answer.Value, err = f(call.Value)
			}
			if err != nil {
				answer.Err = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			enc.Encode(answer) // if that fails, Decode does
		})
	}
}

func pack(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

func unpack(data []byte, v any) error { return gob.NewDecoder(bytes.NewReader(data)).Decode(v) }
