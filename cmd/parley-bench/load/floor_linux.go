package load

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Floor measures what no server can go below: the bare write(2) of a delivery's frame, to as many sockets, at the same rate
// and in the same order as the plan's deliveries, while another process reads and throws away. batch messages share a write:
// 1 is a server that passes on each message at once. command starts a worker, as in Bench.
func Floor(ctx context.Context, plan Plan, batch int, command []string) (FloorReport, error) {
	plan.URLs = []string{"ws://127.0.0.1"} // not asked for anything
	plan, err := plan.WithDefaults()
	if err != nil {
		return FloorReport{}, err
	}
	if most := MaxSockets(); plan.Connections() > most {
		return FloorReport{}, fmt.Errorf("the floor over %d sockets: a process may open %d", plan.Connections(), most)
	}
	sockets, stop, err := drainedSockets(ctx, plan.Connections(), command)
	if err != nil {
		return FloorReport{}, fmt.Errorf("floor: %w", err)
	}
	defer stop()
	return writeFloor(ctx, plan, batch, sockets)
}

// drainedSockets returns sockets that another process reads from, until stop is called.
func drainedSockets(ctx context.Context, count int, command []string) (sockets []int, stop func(), err error) {
	listener, port, err := listen()
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(listener)
	drain, process, err := startWorker(ctx, command)
	if err != nil {
		return nil, nil, err
	}
	stop = func() {
		for _, fd := range sockets {
			unix.Close(fd)
		}
		drain.Close()
		end(process)
	}
	drained := make(chan error, 1) // it ends with the worker, if not before
	go func() { drained <- drain.Call("Drain", DrainOrder{Port: port, Sockets: count}, new(None)) }()
	for len(sockets) < count {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			select {
			case err = <-drained:
			default:
				err = fmt.Errorf("accept: %w", err)
			}
			stop()
			return nil, nil, err
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		sockets = append(sockets, fd)
	}
	return sockets, stop, nil
}

// listen returns a listening socket on 127.0.0.1, whose accept fails after ten seconds without a connection.
func listen() (fd, port int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	limit := unix.NsecToTimeval(int64(10 * time.Second))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		err = unix.Listen(fd, 4096)
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, name.(*unix.SockaddrInet4).Port, nil
}

// writeFloor writes from one thread, whose time is what is measured.
func writeFloor(ctx context.Context, plan Plan, batch int, sockets []int) (FloorReport, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	frame := floorFrame(plan)
	packet := []byte(strings.Repeat(string(frame), batch))
	clock := newClock()
	pace := schedule{start: clock.now(), rate: plan.Rate / float64(batch)}
	measured := pace.start + int64(plan.Warmup)
	end := measured + int64(plan.Duration)

	var before CPU
	var deliveries int64
	for began := false; ctx.Err() == nil; pace.n++ {
		due := pace.next()
		if !began && due >= measured {
			began, deliveries, before = true, 0, usedBy(unix.RUSAGE_THREAD)
		}
		if due >= end {
			break
		}
		if wait := due - clock.now(); wait > 0 {
			ts := unix.NsecToTimespec(wait)
			unix.Nanosleep(&ts, nil)
		}
		room := int(pace.n) % plan.Rooms * plan.RoomSize
		for _, fd := range sockets[room : room+plan.RoomSize] {
			if _, err := unix.Write(fd, packet); err != nil {
				return FloorReport{}, fmt.Errorf("floor: write: %w", err)
			}
		}
		deliveries += int64(batch * plan.RoomSize)
	}
	used := usedBy(unix.RUSAGE_THREAD).minus(before)
	return FloorReport{
		Sockets: len(sockets), FrameBytes: len(frame), Batch: batch, Deliveries: deliveries,
		Cost: costOf("floor", used, deliveries, plan.Duration.Seconds()),
	}, ctx.Err()
}

// A DrainOrder asks a worker to connect to a port of 127.0.0.1 and to throw away what comes.
type DrainOrder struct{ Port, Sockets int }

// Drain reads from so many sockets until the other side has closed them all.
func (w *Worker) Drain(o DrainOrder, _ *None) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	defer unix.Close(epoll)
	for range o.Sockets {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: o.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
	}
	buf := make([]byte, readBuffer)
	events := make([]unix.EpollEvent, batch)
	for open := o.Sockets; open > 0; {
		n, err := unix.EpollWait(epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, e := range events[:max(0, n)] {
			if n, err := unix.Read(int(e.Fd), buf); n <= 0 && err != unix.EINTR {
				unix.Close(int(e.Fd))
				open--
			}
		}
	}
	return nil
}
