package socket

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A segments is a network on which a client says when its records leave, and in what pieces.
type segments struct {
	net.Conn
	held []byte
	hold bool
}

func (s *segments) Write(b []byte) (int, error) {
	if !s.hold {
		return s.Conn.Write(b)
	}
	s.held = append(s.held, b...)
	return len(b), nil
}

// send lets n bytes go, or all that is held.
func (s *segments) send(t *testing.T, n int) {
	t.Helper()
	if n < 0 {
		n = len(s.held)
	}
	if _, err := s.Conn.Write(s.held[:n]); err != nil {
		t.Fatal(err)
	}
	s.held = s.held[n:]
}

// A secureClient speaks to a connection that is parked under TLS.
type secureClient struct {
	*tls.Conn
	wire   *segments
	secret []byte     // of what the client sends
	sent   int        // records under the secret
	conn   *Conn      // the server's side
	ended  func() int // waits for the server's side to end
}

// dialSecure connects to an echo.
func dialSecure(t *testing.T) *secureClient {
	t.Helper()
	return dialEchoes(t, serveEchoes(t, fronts["TLS"]))
}

func dialEchoes(t *testing.T, s *echoes) *secureClient {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("connections are parked on Linux only")
	}
	nc, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(time.Minute))
	c := &secureClient{wire: &segments{Conn: nc}}
	c.ended = sync.OnceValue(func() int { return <-s.ended })
	t.Cleanup(func() {
		nc.Close()
		if c.conn != nil {
			c.ended()
		}
	})
	var keys bytes.Buffer
	c.Conn = tls.Client(c.wire, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, KeyLogWriter: &keys})
	c.say(t, []byte(hello))
	for line := range strings.Lines(keys.String()) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			if c.secret, err = hex.DecodeString(f[2]); err != nil {
				t.Fatal(err)
			}
		}
	}
	head, b := "", make([]byte, 1)
	for !strings.HasSuffix(head, "\r\n\r\n") {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		head += string(b)
	}
	c.conn = <-s.conns
	if c.conn.secure == nil || !c.conn.polled {
		t.Fatal("the connection is not parked")
	}
	return c
}

func (c *secureClient) say(t *testing.T, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	c.sent++
}

// hears reads what is wanted.
func (c *secureClient) hears(t *testing.T, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %.80q (%v), want %.80q", got[:n], err, want)
	}
}

// until waits for the connection to be as told. It is looked at under its lock.
func (c *secureClient) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		c.conn.mu.Lock()
		ok := is()
		c.conn.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is not %s", what)
		}
	}
}

// Nothing wakes the poller for what is inside TLS already.
func TestAllThatCameInOneSegmentIsAnswered(t *testing.T) {
	c := dialSecure(t)
	c.wire.hold = true
	var want []byte
	for i := range 300 {
		text := fmt.Sprint("message ", i)
		c.say(t, clientFrame(0x81, text))
		want = AppendText(want, []byte(text))
	}
	c.wire.send(t, -1)
	c.hears(t, want)
}

func TestARecordLargerThanATurnIsAnswered(t *testing.T) {
	c := dialSecure(t)
	n := 2 * turnBytes / 6
	c.say(t, bytes.Repeat(clientFrame(0x89, ""), n))
	c.hears(t, bytes.Repeat(pong(""), n))
}

func TestARecordThatBeginsHasTheTimeOfAMessage(t *testing.T) {
	c := dialSecure(t)
	c.wire.hold = true
	for _, begin := range []int{3, 10} { // in its header, and after that
		c.say(t, clientFrame(0x81, "hello"))
		c.wire.send(t, begin)
		c.until(t, "waiting for the rest of a record", func() bool { return !c.conn.expires.IsZero() })
		c.wire.send(t, -1)
		c.hears(t, AppendText(nil, []byte("hello")))
		c.until(t, "without anything that has to end", func() bool { return c.conn.expires.IsZero() })
	}

	c.say(t, clientFrame(0x81, "hello"))
	c.wire.send(t, 10)
	c.until(t, "waiting for the rest of a record", func() bool { return !c.conn.expires.IsZero() })
	c.conn.Expire(time.Now().Add(c.conn.group.cfg.MessageWait - 5*time.Second))
	c.until(t, "open before the time is over", func() bool { return !c.conn.dead })
	c.conn.Expire(time.Now().Add(c.conn.group.cfg.MessageWait + time.Second))
	c.ended()
}

func TestTheEndUnderTLSIsSaid(t *testing.T) {
	c := dialSecure(t)
	c.say(t, clientFrame(0x88, "\x03\xe8"))
	c.hears(t, AppendClose(nil, 1000, ""))
	if n, err := c.Read(make([]byte, 1)); err != io.EOF { // not io.ErrUnexpectedEOF
		t.Errorf("read %d, %v", n, err)
	}
	if code := c.ended(); code != 1000 {
		t.Errorf("ended with %d", code)
	}
}

func TestAnIdleTLSConnectionKeepsNoBuffers(t *testing.T) {
	if tlsInput == noField || tlsHandshake == noField {
		t.Fatal("crypto/tls has other buffers than before")
	}
	s := serveEchoes(t, fronts["TLS"])
	s.byHand = true
	c := dialEchoes(t, s)
	buf := make([]byte, pollBuffer)
	for range 2 {
		text := strings.Repeat("x", 16<<10)
		c.say(t, clientFrame(0x81, text))
		heard := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(c, make([]byte, len(AppendText(nil, []byte(text)))))
			heard <- err
		}()
		for answered := false; !answered; {
			if err := c.conn.readSome(buf, false); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-heard:
				if answered = true; err != nil {
					t.Fatal(err)
				}
			default:
				runtime.Gosched()
			}
		}
		for _, offset := range []uintptr{tlsInput, tlsHandshake} {
			if n := c.conn.secure.buffer(offset).Cap(); n > 0 {
				t.Errorf("a buffer of %d bytes is kept", n)
			}
		}
	}
	c.conn.End(c.conn.handler)
}

// newKeys is an update of the client's keys that asks for the server's (RFC 8446 section 4.6.3). The client's Conn does not know of
// it: from here on records are made by sealed.
func (c *secureClient) newKeys() []byte {
	update := c.sealed(22, []byte{24, 0, 0, 1, 1})
	c.secret, c.sent = expand(c.secret, "traffic upd", sha256.Size), 0
	return update
}

// sealed is a record of TLS_AES_128_GCM_SHA256 (RFC 8446 sections 5.2 and 5.3).
func (c *secureClient) sealed(kind byte, b []byte) []byte {
	block, _ := aes.NewCipher(expand(c.secret, "key", 16))
	gcm, _ := cipher.NewGCM(block)
	nonce := expand(c.secret, "iv", 12)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^uint64(c.sent))
	c.sent++
	inner := append(bytes.Clone(b), kind)
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+gcm.Overhead()))
	return gcm.Seal(head, nonce, inner, head)
}

func expand(secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
	out, err := hkdf.Expand(sha256.New, secret, string(info)+label+"\x00", n)
	if err != nil {
		panic(err)
	}
	return out
}

func needsAES(t *testing.T, c *secureClient) {
	t.Helper()
	if suite := c.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("on a processor without AES instructions crypto/tls speaks %s", tls.CipherSuiteName(suite))
	}
}

func TestNewKeysAreAnsweredAndUsed(t *testing.T) {
	c := dialSecure(t)
	needsAES(t, c)
	for i := range 5 {
		text := fmt.Sprint("under keys ", i)
		if _, err := c.wire.Conn.Write(append(c.newKeys(), c.sealed(23, clientFrame(0x81, text))...)); err != nil {
			t.Fatal(err)
		}
		c.hears(t, AppendText(nil, []byte(text))) // crypto/tls, which reads it, was told of the server's new keys before
	}
}

// Who asks for new keys again and again, and reads nothing, makes the server owe answers: it is not read from meanwhile.
func TestAFloodOfNewKeysIsBounded(t *testing.T) {
	s := serveEchoes(t, fronts["TLS"])
	s.byHand = true
	c := dialEchoes(t, s)
	needsAES(t, c)
	defer c.conn.End(c.conn.handler)
	defer c.wire.Close()
	ping, buf := clientFrame(0x89, strings.Repeat("x", 125)), make([]byte, pollBuffer)
	much := AppendText(nil, bytes.Repeat([]byte("x"), 8<<10))
	for c.conn.Waiting() < c.conn.group.cfg.QueueBytes/2-len(much) { // it takes nothing, but for what the sockets hold
		c.conn.Put(much)
	}
	for range 100_000 {
		if _, err := c.wire.Conn.Write(append(c.newKeys(), c.sealed(23, ping)...)); err != nil {
			t.Fatal(err)
		}
		err := c.conn.readSome(buf, false)
		if waiting := c.conn.Waiting(); waiting > c.conn.group.cfg.QueueBytes {
			t.Fatalf("%d bytes wait, of %d", waiting, c.conn.group.cfg.QueueBytes)
		}
		if errors.Is(err, errWouldWait) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("it is read from though it takes nothing")
}
