package socket

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// Accept makes a WebSocket of a request, or answers it with what is wrong. The client is told that it is open with the first
// Put.
//
// Of the library it takes the handshake only: the library is told that it can't have the connection, and makes nothing of it.
func (g *Group) Accept(w http.ResponseWriter, r *http.Request, subprotocol string) (*Conn, error) {
	up := &upgrade{ResponseWriter: w, group: g}
	_, err := websocket.Accept(up, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // origins are the caller's to check
	})
	if up.conn == nil {
		return nil, err // Accept has answered
	}
	return up.conn, nil
}

// An upgrade makes a Conn of the connection that websocket.Accept wants to hijack, and keeps the answer to the handshake back.
type upgrade struct {
	http.ResponseWriter
	group *Group
	conn  *Conn
	head  []byte // the answer
}

// WriteHeader keeps the answer to a handshake, and passes on a refusal.
func (u *upgrade) WriteHeader(status int) {
	switch {
	case u.conn != nil: // errTaken is no refusal
	case status == http.StatusSwitchingProtocols:
		head := bytes.NewBuffer(make([]byte, 0, 640)) // and the welcome, which is put after it
		head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
		u.Header().Write(head)
		head.WriteString("\r\n")
		u.head = head.Bytes()
	default:
		u.ResponseWriter.WriteHeader(status)
	}
}

// Write passes on what is said of a refusal.
func (u *upgrade) Write(b []byte) (int, error) {
	if u.conn != nil {
		return len(b), nil
	}
	return u.ResponseWriter.Write(b)
}

var errTaken = errors.New("the connection is taken")

// Hijack takes the connection over. The server's 4 KiB buffers are left behind; what the client said early is kept. It returns errTaken, or
// why it failed.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	nc.SetDeadline(time.Time{})
	c := u.group.newConn(nc)
	if n := brw.Reader.Buffered(); n > 0 {
		early, _ := brw.Reader.Peek(n)
		c.rest = bytes.Clone(early)
	}
	c.head, u.conn = u.head, c
	return nil, nil, errTaken
}
