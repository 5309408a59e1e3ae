package socket

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/coder/websocket"
)

// Accept makes a WebSocket of a request, or answers it with what is wrong. The client is told that it is open with the first
// Put.
func (g *Group) Accept(w http.ResponseWriter, r *http.Request, subprotocol string) (*Conn, error) {
	up := &upgrade{ResponseWriter: w, group: g}
	ws, err := websocket.Accept(up, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // origins are the caller's to check
	})
	if err != nil {
		return nil, err // Accept has answered
	}
	// The library has made the handshake, and is not needed any more. When it is collected, it would close the connection.
	runtime.SetFinalizer(ws, nil)
	return up.conn, nil
}

// An upgrade makes a Conn of the connection that websocket.Accept hijacks, and keeps the answer to the handshake back.
type upgrade struct {
	http.ResponseWriter
	group *Group
	conn  *Conn
	head  []byte // the answer
}

// WriteHeader keeps the answer to a handshake, and passes on a refusal.
func (u *upgrade) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols {
		u.ResponseWriter.WriteHeader(status)
		return
	}
	head := bytes.NewBufferString("HTTP/1.1 101 Switching Protocols\r\n")
	u.Header().Write(head)
	head.WriteString("\r\n")
	u.head = head.Bytes()
}

// Hijack takes the connection over. The server's 4 KiB buffers are left behind; what the client said early is kept.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	nc.SetDeadline(time.Time{})
	c := u.group.newConn(nc)
	early, _ := brw.Reader.Peek(brw.Reader.Buffered())
	c.head, c.rest, u.conn = u.head, bytes.Clone(early), c
	return nc, bufio.NewReadWriter(bufio.NewReaderSize(nc, 0), bufio.NewWriterSize(nc, 1)), nil // which nobody uses
}
