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
// It takes a request only over TCP with nothing above it, of Listen's listener on Linux, if all of its head has come when the connection is
// accepted, and is as plain as clients make it. Of any other it has read nothing: the http.Server gets the connection as it was.
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
	l, ok := u.Listener.(*plainListener)
	if !ok {
		return u.Listener.Accept()
	}
	for {
		p, err := l.acceptPlain()
		if err != nil {
			return nil, err
		}
		if r := u.take(p); r != nil {
			if u.workers == nil {
				u.workers = newWorkers()
			}
			u.workers.Go(func() { u.serve(p, r) })
			continue
		}
		nc, err := p.ordinary()
		if err == nil {
			return nc, nil
		}
		u.Log.Printf("http: a connection is dropped: %v", err) // there are no descriptors left
	}
}

// Wait returns once no request is being served. Accept is not called any more.
func (u *Upgrades) Wait() {
	if u.workers != nil {
		u.workers.close()
	}
}

// take reads the request that a connection begins with, nil if it is not for here. It is called by the one who accepts, and must not wait.
func (u *Upgrades) take(p *plainConn) *http.Request {
	head, _, whole := bytes.Cut(u.peeked[:peekNow(p.fd, u.peeked[:])], []byte("\r\n\r\n"))
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
	if err != nil || !receiveNow(p.fd, head) {
		return nil
	}
	r.RemoteAddr = p.RemoteAddr().String()
	return r
}

// isPlainUpgrade reports whether a request's head asks for a WebSocket, and has nothing that an http.Server would have to refuse or to care for.
func isPlainUpgrade(head []byte) bool {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	target, isGet := bytes.CutPrefix(line, []byte("GET /"))
	target, isHTTP11 := bytes.CutSuffix(target, []byte(" HTTP/1.1"))
	if !isGet || !isHTTP11 || !inTarget.haveAll(target) {
		return false
	}
	hosts, upgrades := 0, 0
	for line := range bytes.SplitSeq(rest, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if len(name) == 0 || !inName.haveAll(name) || !inValue.haveAll(value) {
			return false
		}
		is := func(field string) bool { return len(name) == len(field) && strings.EqualFold(string(name), field) }
		switch value = bytes.Trim(value, " \t"); {
		case is("host"):
			if hosts++; len(value) == 0 || !inHost.haveAll(value) {
				return false
			}
		case is("upgrade"):
			if upgrades++; !strings.EqualFold(string(value), "websocket") {
				return false
			}
		case is("content-length"), is("transfer-encoding"), is("trailer"), is("expect"):
			return false
		}
	}
	return hosts == 1 && upgrades == 1
}

// A charset is the bytes that some part of a head may have.
type charset [256]bool

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

var (
	inName   = charsetOf(func(c byte) bool { return strings.IndexByte(letters+"-", c) >= 0 })
	inHost   = charsetOf(func(c byte) bool { return strings.IndexByte(letters+"-.:[]_", c) >= 0 })
	inTarget = charsetOf(func(c byte) bool { return c > ' ' && c < 0x7f })
	inValue  = charsetOf(func(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' })
)

func charsetOf(has func(byte) bool) *charset {
	var s charset
	for c := range s {
		s[c] = has(byte(c))
	}
	return &s
}

func (s *charset) haveAll(b []byte) bool {
	for _, c := range b {
		if !s[c] {
			return false
		}
	}
	return true
}

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
