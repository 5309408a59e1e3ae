package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"parley/cmd/internal/selfsigned"
	"parley/node/wire"
)

// again gives many of the same frame.
func again(f []byte) func() []byte {
	many := bytes.Repeat(f, max(1, 8<<10/len(f)))
	return func() []byte { return many }
}

// frame is a client's, with a mask of zeros.
func frame(op byte, payload string, fin bool) []byte {
	b := wire.AppendMasked(nil, op, payload)
	if !fin {
		b[0] = op
	}
	return b
}

// A node is a process.
type node struct {
	cmd    *exec.Cmd
	addr   string
	secure bool
	dir    string // of its certificate
}

func start(parley string, secure bool) (*node, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &node{addr: l.Addr().String(), secure: secure}
	l.Close()
	n.cmd = exec.Command(parley, "--listen", n.addr, "--log-level", "error")
	if secure {
		if n.dir, err = os.MkdirTemp("", "parley-attack"); err != nil {
			return nil, err
		}
		cert, key := filepath.Join(n.dir, "cert.pem"), filepath.Join(n.dir, "key.pem")
		if _, err := selfsigned.Write(cert, key, 1); err != nil {
			return nil, err
		}
		n.cmd.Args = append(n.cmd.Args, "--tls-cert", cert, "--tls-key", key)
	}
	n.cmd.Stderr = os.Stderr
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		if c, err := net.Dial("tcp", n.addr); err == nil {
			c.Close()
			return n, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	n.stop()
	return nil, fmt.Errorf("%s does not listen on %s", parley, n.addr)
}

func (n *node) stop() {
	n.cmd.Process.Kill()
	n.cmd.Wait()
	if n.dir != "" {
		os.RemoveAll(n.dir)
	}
}

// memory is what the node has resident, in bytes (proc(5)).
func (n *node) memory() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.cmd.Process.Pid))
	var size, resident int
	fmt.Sscan(string(b), &size, &resident)
	return resident * os.Getpagesize()
}

func (n *node) connect() (net.Conn, error) {
	nc, err := net.Dial("tcp", n.addr)
	if err == nil && n.secure {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is on loopback
	}
	return nc, err
}

// A client has only its socket.
type client struct {
	nc net.Conn
	r  *bufio.Reader
}

func (n *node) dial() (*client, error) {
	nc, err := n.connect()
	if err != nil {
		return nil, err
	}
	c := &client{nc, bufio.NewReader(nc)}
	io.WriteString(nc, "GET / HTTP/1.1\r\nHost: parley\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: "+wire.Subprotocol+"\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("the handshake is answered %s", resp.Status)
	}
	return c, err
}

func (c *client) next() (op byte, payload []byte, err error) { return wire.ReadRaw(c.r) }
