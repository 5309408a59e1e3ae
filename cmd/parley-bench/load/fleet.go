package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A fleet is the workers of a run: one in this process if it may open enough sockets, otherwise several processes.
type fleet struct {
	workers []*workerClient
	done    sync.WaitGroup
}

type workerClient struct {
	*caller
	assignment Assignment
	process    *exec.Cmd // nil in this process
}

// muster starts count workers and gives each its share of the plan.
func muster(ctx context.Context, plan Plan, count int, command []string) (*fleet, error) {
	f := new(fleet)
	shares := split(plan, count)
	for _, share := range shares {
		w := &workerClient{assignment: share}
		var err error
		if len(shares) == 1 {
			near, far := net.Pipe()
			f.done.Go(func() { serveWorker(far) })
			w.caller = newCaller(near)
		} else if w.caller, w.process, err = startWorker(ctx, command); err != nil {
			f.dismiss()
			return nil, err
		}
		f.workers = append(f.workers, w)
	}
	err := f.each(func(w *workerClient) error { return w.Call("Open", w.assignment, new(None)) })
	if err != nil {
		f.dismiss()
		return nil, err
	}
	return f, nil
}

// startWorker starts a process that serves as a worker until its standard input ends.
func startWorker(ctx context.Context, command []string) (*caller, *exec.Cmd, error) {
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, nil, fmt.Errorf("start a worker: %w", err)
		}
		command = []string{self, "worker"}
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return nil, nil, fmt.Errorf("start a worker: %w", err)
	}
	return newCaller(pipes{out, in}), cmd, nil
}

// end waits for a worker whose pipe was closed, but not for ever.
func end(worker *exec.Cmd) {
	late := time.AfterFunc(5*time.Second, func() { worker.Process.Kill() })
	defer late.Stop()
	worker.Wait() // how it ended does not matter any more
}

// pipes are a connection to another process. Closing it ends what that reads.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// each calls every worker at the same time, and waits for all.
func (f *fleet) each(call func(w *workerClient) error) error {
	errs := make([]error, len(f.workers))
	var wg sync.WaitGroup
	for i, w := range f.workers {
		wg.Go(func() { errs[i] = call(w) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err // one is enough: the others' are mostly the same
		}
	}
	return nil
}

// dismiss ends the workers and waits until they are gone.
func (f *fleet) dismiss() {
	for _, w := range f.workers {
		w.Close()
		if w.process != nil {
			end(w.process)
		}
	}
	f.done.Wait()
}

// split shares a plan's connections out, whole rooms if there are enough of them.
func split(plan Plan, count int) []Assignment {
	unit, units := plan.RoomSize, plan.Rooms
	if units < count {
		unit, units = 1, plan.Connections()
	}
	count = max(1, min(count, units))
	shares := make([]Assignment, count)
	for i := range shares {
		from, to := units*i/count, units*(i+1)/count
		shares[i] = Assignment{Plan: plan, First: from * unit, Count: (to - from) * unit}
	}
	return shares
}

// workersFor is how many workers a plan needs, if each may open limit sockets.
func workersFor(plan Plan, limit int) int {
	for count := 1; ; count++ {
		shares := split(plan, count)
		fits := true
		for _, s := range shares {
			fits = fits && s.Count <= limit
		}
		if fits {
			return count
		}
	}
}
