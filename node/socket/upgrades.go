package socket

import (
	"bufio"
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// Upgrades is the listener of an http.Server that serves requests for a WebSocket by itself, which is cheaper: net/http has a
// connection watched while its request is served, by a goroutine and a read of its own, and leaves 8 KB of buffers behind in one that is taken over.
//
// It takes a request only if all of its head has come when the connection is accepted, and is as plain as clients make it. Of any other it has
// read nothing: the http.Server gets the connection as it was.
type Upgrades struct {
	net.Listener
	Handler http.Handler
	Log     *log.Logger

	// Owned by Accept, which one goroutine calls.
	workers *workers // serve requests; nil until the first
	peeked  [4 << 10]byte
	reader  bytes.Reader
	buffer  *bufio.Reader
}

// Accept implements net.Listener.
func (u *Upgrades) Accept() (net.Conn, error) {
	for {
		nc, err := u.Listener.Accept()
		if err != nil {
			return nil, err
		}
		r := u.take(nc)
		if r == nil {
			return nc, nil
		}
		if u.workers == nil {
			u.workers = newWorkers()
		}
		u.workers.Go(func() { u.serve(nc, r) })
	}
}

// Wait returns once no request is being served. Accept is not called any more.
func (u *Upgrades) Wait() {
	if u.workers != nil {
		u.workers.close()
	}
}

// take reads the request that a connection begins with, nil if it is not for here. It is called by the one who accepts, and must not wait:
// a connection of another kind may have to read first, such as a header of the PROXY protocol, and what is in its socket is not all that counts.
func (u *Upgrades) take(nc net.Conn) *http.Request {
	if _, plain := nc.(*net.TCPConn); !plain {
		return nil
	}
	fd := socketOf(nc)
	head, _, whole := bytes.Cut(u.peeked[:peekNow(fd, u.peeked[:])], []byte("\r\n\r\n"))
	if !whole || !isPlainUpgrade(head) {
		return nil
	}
	head = u.peeked[:len(head)+4]
	u.reader.Reset(head)
	if u.buffer == nil {
		u.buffer = bufio.NewReader(nil)
	}
	u.buffer.Reset(&u.reader)
	r, err := http.ReadRequest(u.buffer)
	if err != nil || !receiveNow(fd, head) {
		return nil
	}
	r.RemoteAddr = nc.RemoteAddr().String()
	return r
}

// isPlainUpgrade reports whether a request's head asks for a WebSocket, and has nothing that an http.Server would have to refuse or to care for.
func isPlainUpgrade(head []byte) bool {
	line, rest, _ := strings.Cut(string(head), "\r\n")
	target, isGet := strings.CutPrefix(line, "GET /")
	target, isHTTP11 := strings.CutSuffix(target, " HTTP/1.1")
	if !isGet || !isHTTP11 || strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return false
	}
	hosts, upgrades := 0, 0
	for line := range strings.SplitSeq(rest, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if name == "" || strings.Trim(name, nameBytes) != "" || strings.ContainsFunc(value, isControl) {
			return false
		}
		switch value = strings.Trim(value, " \t"); strings.ToLower(name) {
		case "host":
			if hosts++; value == "" || strings.Trim(value, hostBytes) != "" {
				return false
			}
		case "upgrade":
			if upgrades++; !strings.EqualFold(value, "websocket") {
				return false
			}
		case "content-length", "transfer-encoding", "trailer", "expect":
			return false
		}
	}
	return hosts == 1 && upgrades == 1
}

const (
	letters   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	nameBytes = letters + "-"
	hostBytes = letters + "-.:[]_"
)

func isControl(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

// serve has the handler answer a request.
func (u *Upgrades) serve(nc net.Conn, r *http.Request) {
	w := &upgradeAnswer{nc: nc, header: make(http.Header)}
	defer func() {
		if p := recover(); p != nil { // as in an http.Server
			if p != http.ErrAbortHandler {
				u.Log.Printf("http: panic serving %v: %v\n%s", nc.RemoteAddr(), p, debug.Stack())
			}
			nc.Close()
		}
	}()
	u.Handler.ServeHTTP(w, r)
	if !w.hijacked {
		w.end(r)
	}
}

// An upgradeAnswer is what a request is answered that is refused: until then it is kept.
type upgradeAnswer struct {
	nc       net.Conn
	header   http.Header
	status   int
	body     bytes.Buffer
	hijacked bool
}

// Header implements http.ResponseWriter.
func (a *upgradeAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *upgradeAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *upgradeAnswer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// SetWriteDeadline is for http.ResponseController. Nothing is written before end.
func (a *upgradeAnswer) SetWriteDeadline(time.Time) error { return nil }

// Hijack implements http.Hijacker. What follows the request is in the socket still.
func (a *upgradeAnswer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if a.hijacked {
		return nil, nil, http.ErrHijacked
	}
	a.hijacked = true
	return a.nc, bufio.NewReadWriter(bufio.NewReaderSize(a.nc, 0), bufio.NewWriterSize(a.nc, 1)), nil
}

const (
	answerWait = 10 * time.Second       // how long the client may take to be sent an answer,
	closeAfter = 500 * time.Millisecond // and to take it in: what it says meanwhile would have the kernel take the answer back
)

// end answers, and closes the connection.
func (a *upgradeAnswer) end(r *http.Request) {
	defer a.nc.Close()
	a.WriteHeader(http.StatusOK)
	a.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	answer := http.Response{
		StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Header: a.header, Request: r, Close: true,
		Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()),
	}
	a.nc.SetDeadline(time.Now().Add(answerWait))
	if answer.Write(a.nc) != nil {
		return
	}
	if t, ok := a.nc.(interface{ CloseWrite() error }); ok && t.CloseWrite() == nil {
		a.nc.SetReadDeadline(time.Now().Add(closeAfter))
		io.Copy(io.Discard, a.nc)
	}
}
