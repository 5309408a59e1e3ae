package socket

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"parley/node/wire"
)

// Buffers of a connection. What is written bypasses the library's buffer, except control frames, which have to fit, as each
// has to be one write.
const (
	readBuffer   = 512
	headerBuffer = 16 // of a polled connection: the message is in memory, only headers are taken through it
	writeBuffer  = 128
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
	ws.SetReadLimit(wire.MaxFrame)
	up.conn.ws = ws
	return up.conn, nil
}

// An upgrade hands a Conn to websocket.Accept in place of the connection that it hijacks, and keeps the answer to the handshake
// back.
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
	c.head, u.conn = u.head, c
	early, _ := brw.Reader.Peek(brw.Reader.Buffered())
	size := readBuffer
	if c.polled {
		size = headerBuffer
		c.begun = append(c.begun, early...)
	} else {
		c.given = bytes.Clone(early)
	}
	lib := library{nc, c}
	return lib, bufio.NewReadWriter(bufio.NewReaderSize(lib, size), bufio.NewWriterSize(lib, writeBuffer)), nil
}
