package socket

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"parley/node/wire"
)

// clientFrame is a client's frame. first is its first byte.
func clientFrame(first byte, payload string) []byte {
	mask := [4]byte{0x5a, 0, 0xff, 7}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

// What an echo answers.
func text(s string) []byte { return AppendText(nil, []byte(s)) }
func pong(s string) []byte { return appendControl(nil, wire.OpPong, []byte(s)) }
func closed(code int, reason string) []byte {
	return AppendClose(nil, code, reason)
}

func cat(b ...[]byte) []byte { return slices.Concat(b...) }

// A conversation is what a client sends, and all that it gets from one who echoes what it is told, up to the end.
type conversation struct {
	name    string
	in, out []byte
	code    int  // that the connection is counted with
	goesOn  bool // the connection goes on
}

// conversations are after the sections of RFC 6455, and the cases of Autobahn's suite, which end as they do.
var conversations = func() []conversation {
	const fin = 0x80
	x125, x126, x64k := strings.Repeat("*", 125), strings.Repeat("*", 126), strings.Repeat("*", 64<<10)
	breach := func(reason string) []byte { return closed(1002, reason) }
	bye := clientFrame(fin|wire.OpClose, "\x03\xe8")
	byeBack := closed(1000, "")
	all := []conversation{
		{name: "an empty text", in: cat(clientFrame(fin|1, ""), bye), out: cat(text(""), byeBack), code: 1000},
		{name: "125 bytes", in: cat(clientFrame(fin|1, x125), bye), out: cat(text(x125), byeBack), code: 1000},
		{name: "126 bytes", in: cat(clientFrame(fin|1, x126), bye), out: cat(text(x126), byeBack), code: 1000},
		{name: "the largest message", in: cat(clientFrame(fin|1, x64k), bye), out: cat(text(x64k), byeBack), code: 1000},
		{name: "one too large", in: clientFrame(fin|1, x64k+"*"), out: closed(1009, tooBig), code: 1009},
		{name: "too large in fragments", in: cat(clientFrame(1, x64k), clientFrame(fin, "*")), out: closed(1009, tooBig), code: 1009},
		{name: "absurdly large", in: []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, out: closed(1009, tooBig), code: 1009},
		{name: "a negative length", in: []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, out: breach("a length that is not in its shortest form"), code: 1002},

		{name: "ping", in: cat(clientFrame(fin|9, ""), bye), out: cat(pong(""), byeBack), code: 1000},
		{name: "ping with a payload", in: cat(clientFrame(fin|9, "\x00\xff\xfe"), bye), out: cat(pong("\x00\xff\xfe"), byeBack), code: 1000},
		{name: "ping of 125 bytes", in: cat(clientFrame(fin|9, x125), bye), out: cat(pong(x125), byeBack), code: 1000},
		{name: "ping of 126 bytes", in: clientFrame(fin|9, x126), out: breach("a control frame of more than 125 bytes"), code: 1002},
		{name: "ping whose length takes 2 bytes", in: []byte{0x89, 0xfe, 0, 4, 0, 0, 0, 0, 'p', 'i', 'n', 'g'}, out: breach("a control frame of more than 125 bytes"), code: 1002},
		{name: "ping whose length takes 8 bytes", in: []byte{0x89, 0xff, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 'p', 'i', 'n', 'g'}, out: breach("a control frame of more than 125 bytes"), code: 1002},
		{name: "text whose length takes 2 bytes", in: []byte{0x81, 0xfe, 0, 1, 0, 0, 0, 0, 'x'}, out: breach("a length that is not in its shortest form"), code: 1002},
		{name: "text whose length takes 8 bytes", in: append([]byte{0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 126, 0, 0, 0, 0}, x126...), out: breach("a length that is not in its shortest form"), code: 1002},
		{name: "pongs", in: cat(clientFrame(fin|10, ""), clientFrame(fin|10, "unasked"), clientFrame(fin|9, "p"), bye), out: cat(pong("p"), byeBack), code: 1000},
		{name: "ten pings", in: cat(bytes.Repeat(clientFrame(fin|9, "p"), 10), bye), out: cat(bytes.Repeat(pong("p"), 10), byeBack), code: 1000},
		{name: "ping in fragments", in: cat(clientFrame(9, "pi"), clientFrame(fin, "ng")), out: breach("a control frame in fragments"), code: 1002},
		{name: "pong in fragments", in: clientFrame(10, "po"), out: breach("a control frame in fragments"), code: 1002},

		{name: "no mask", in: []byte{0x81, 1, 'x'}, out: breach("a frame is not masked"), code: 1002},
		{name: "a continuation of nothing", in: clientFrame(fin, "x"), out: breach("a continuation of nothing"), code: 1002},
		{name: "a continuation of nothing, to be continued", in: clientFrame(0, "x"), out: breach("a continuation of nothing"), code: 1002},
		{name: "a continuation of a whole message", in: cat(clientFrame(fin|1, "a"), clientFrame(fin, "b")), out: cat(text("a"), breach("a continuation of nothing")), code: 1002},
		{name: "a message within another", in: cat(clientFrame(1, "a"), clientFrame(fin|1, "b")), out: breach("a message within another"), code: 1002},

		{name: "two fragments", in: cat(clientFrame(1, "a"), clientFrame(fin, "b"), bye), out: cat(text("ab"), byeBack), code: 1000},
		{name: "empty fragments", in: cat(clientFrame(1, ""), clientFrame(0, ""), clientFrame(fin, ""), bye), out: cat(text(""), byeBack), code: 1000},
		{name: "a crowd of empty fragments", in: cat(clientFrame(1, "a"), bytes.Repeat(clientFrame(0, ""), 3000), clientFrame(fin, "b"), bye), out: cat(text("ab"), byeBack), code: 1000},
		{
			name: "ping between fragments", in: cat(clientFrame(1, "a"), clientFrame(fin|9, "p"), clientFrame(0, "b"), clientFrame(fin|9, "q"), clientFrame(fin, "c"), bye),
			out: cat(pong("p"), pong("q"), text("abc"), byeBack), code: 1000,
		},
		{name: "ping between fragments, the last of which does not come", in: cat(clientFrame(1, "a"), clientFrame(fin|9, "p")), out: pong("p"), goesOn: true},
		{name: "close between fragments", in: cat(clientFrame(1, "a"), bye), out: byeBack, code: 1000},
		{name: "a letter over two fragments", in: cat(clientFrame(1, "\xce"), clientFrame(fin, "\xba"), bye), out: cat(text("κ"), byeBack), code: 1000},

		{name: "close without a code", in: clientFrame(fin|8, ""), out: []byte{0x88, 0}, code: 1005},
		{name: "close with half a code", in: clientFrame(fin|8, "\x03"), out: breach("half a close code"), code: 1002},
		{name: "close with a reason", in: clientFrame(fin|8, "\x03\xe8so long κ"), out: closed(1000, "so long κ"), code: 1000},
		{name: "close with the longest reason", in: clientFrame(fin|8, "\x03\xe8"+x125[2:]), out: closed(1000, x125[2:]), code: 1000},
		{name: "close with too long a reason", in: clientFrame(fin|8, "\x03\xe8"+x125), out: breach("a control frame of more than 125 bytes"), code: 1002},
		{
			name: "close with a reason that is not UTF-8", in: clientFrame(fin|8, "\x03\xe8\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),
			out: closed(1007, "the reason of a close has to be UTF-8"), code: 1007,
		},
		{name: "what follows a close", in: cat(bye, clientFrame(fin|1, "x"), clientFrame(fin|9, "p")), out: byeBack, code: 1000},
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		all = append(all, conversation{name: fmt.Sprint("opcode ", op), in: clientFrame(fin|op, "x"), out: breach("an unknown opcode"), code: 1002},
			conversation{name: fmt.Sprintf("opcode %d after a message", op), in: cat(clientFrame(fin|1, "a"), clientFrame(fin|op, "")), out: cat(text("a"), breach("an unknown opcode")), code: 1002})
	}
	for rsv := byte(1); rsv < 8; rsv++ {
		for _, op := range []byte{1, 8, 9} {
			all = append(all, conversation{
				name: fmt.Sprintf("reserved bits %d, opcode %d", rsv, op), in: clientFrame(fin|rsv<<4|op, "\x03\xe8"),
				out: breach("a reserved bit is set"), code: 1002,
			})
		}
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		frame := clientFrame(fin|8, string(binary.BigEndian.AppendUint16(nil, uint16(code))))
		all = append(all, conversation{name: fmt.Sprint("close ", code), in: frame, out: closed(code, ""), code: code})
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		frame := clientFrame(fin|8, string(binary.BigEndian.AppendUint16(nil, uint16(code))))
		all = append(all, conversation{name: fmt.Sprint("close ", code), in: frame, out: breach("a close code that must not be sent"), code: 1002})
	}
	return all
}()

// read is a conversation with frames alone: what an echo over it says. piece is how many bytes come at a time.
func read(in []byte, piece int) (out []byte, code int) {
	var f frames
	for len(in) > 0 {
		b := bytes.Clone(in[:min(piece, len(in))])
		in = in[len(b):]
		for len(b) > 0 {
			op, payload, rest, bad := f.next(b)
			b = rest
			if op == wire.OpClose && bad == nil {
				if code, bad = closeCode(payload); bad == nil {
					return append(out, appendControl(nil, op, payload)...), code
				}
			}
			switch {
			case bad != nil:
				return append(out, closed(bad.code, bad.reason)...), bad.code
			case op == wire.OpPing:
				out = append(out, pong(string(payload))...)
			case op == wire.OpText || op == wire.OpBinary:
				out = append(out, text(string(payload))...)
				f.release()
			}
		}
	}
	return out, 0
}

func TestFramesAreReadAsTheProtocolHasThem(t *testing.T) {
	for _, c := range conversations {
		for _, piece := range []int{1, 2, 3, 7, 100, 4096, 1 << 20} {
			out, code := read(c.in, piece)
			if !bytes.Equal(out, c.out) || code != c.code {
				t.Errorf("%s, %d bytes at a time: got %.80q, %d, want %.80q, %d", c.name, piece, out, code, c.out, c.code)
			}
		}
	}
}

func TestWhatIsKeptOfAMessageIsBounded(t *testing.T) {
	var f frames
	feed := func(b []byte) {
		if _, _, _, bad := f.next(b); bad != nil {
			t.Fatal(bad.reason)
		}
	}
	feed(clientFrame(1, strings.Repeat("x", 1000)))
	ping := clientFrame(0x89, strings.Repeat("x", 125))
	for range 10_000 {
		feed(ping)
		feed(clientFrame(0, ""))
	}
	if kept := cap(f.data) + cap(f.aside); kept > 4<<10 {
		t.Errorf("%d bytes are kept of a message of 1000", kept)
	}
	n := testing.AllocsPerRun(100, func() { feed(ping) })
	if n > 2 { // the clone of the frame that is unmasked in place would be one
		t.Errorf("a ping within a message takes %v allocations", n)
	}
}

// FuzzFrames holds that frames read the same in pieces as whole, and as the WebSocket library reads them, where that is right.
func FuzzFrames(f *testing.F) {
	for _, c := range conversations {
		f.Add(c.in, 3)
	}
	f.Add([]byte("\x89\xfe\x00\x00mask\x83\x80mask"), 3) // an empty ping whose length is in the form of 126 to 65535, and an unknown opcode
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		out, code := read(b, 1<<20)
		if inPieces, code2 := read(b, 1+abs(piece)%64); !bytes.Equal(out, inPieces) || code != code2 {
			t.Fatalf("whole: %q, %d; in pieces: %q, %d", out, code, inPieces, code2)
		}
		theirs, code2 := readByLibrary(t, b)
		switch {
		case bytes.Contains(out, []byte("shortest")) || bytes.Contains(out, []byte("not masked")): // it takes the one, and says nothing of the other
			return
		case bytes.Contains(out, []byte("control frame of more")): // nor is a length in the form of a longer one wrong to it
			return
		case code == wire.StatusProtocol && bytes.Contains(out, []byte("control frame")) && code2 != code: // it waits for the whole header
			return
		case code == wire.StatusProtocol && code2 == 0: // as it does for others
			return
		case code == wire.StatusNotUTF8 && code2 != code: // nor of a reason that is not UTF-8
			return
		case code == wire.StatusTooBig && code2 == 0: // it waits for what is too much
			return
		}
		if code != code2 {
			t.Fatalf("ended with %d, in the library with %d", code, code2)
		}
		if i := bytes.LastIndexByte(out, 0x88); code != 0 && i >= 0 && code != wire.StatusNone {
			out = out[:len(out)-len(lastClose(out))]
			theirs = theirs[:len(theirs)-len(lastClose(theirs))]
		}
		if !bytes.Equal(out, theirs) {
			t.Fatalf("answered %q, by the library %q", out, theirs)
		}
	})
}

func abs(n int) int { return max(n, -(n + 1)) }

// lastClose is the close at the end of what a server says.
func lastClose(b []byte) []byte {
	for i := 0; i < len(b); {
		n := 2 + int(b[i+1])
		switch b[i+1] {
		case 126:
			n = 4 + int(binary.BigEndian.Uint16(b[i+2:]))
		case 127:
			n = 10 + int(binary.BigEndian.Uint64(b[i+2:]))
		}
		if b[i] == 0x88 {
			return b[i:]
		}
		i += n
	}
	return nil
}

// readByLibrary is read by the WebSocket library.
func readByLibrary(t *testing.T, in []byte) (out []byte, code int) {
	lone := &lone{in: bytes.NewReader(in)}
	r := httptest.NewRequest("GET", "/", nil)
	for k, v := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		r.Header.Set(k, v)
	}
	ws, err := websocket.Accept(&hijacked{httptest.NewRecorder(), lone}, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(wire.MaxFrame)
	for {
		_, b, err := ws.Read(context.Background())
		if err == nil {
			lone.out.Write(text(string(b)))
			continue
		}
		if code := websocket.CloseStatus(err); code >= 0 {
			return lone.out.Bytes(), int(code)
		}
		out = lone.out.Bytes()
		if c := lastClose(out); len(c) >= 4 {
			return out, int(binary.BigEndian.Uint16(c[2:]))
		}
		return out, 0
	}
}

// A lone connection has one that has said all it says.
type lone struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (l *lone) Read(b []byte) (int, error) {
	n, err := l.in.Read(b)
	if err != nil {
		err = net.ErrClosed // at io.EOF the library takes the beginning of a message for all of it
	}
	return n, err
}
func (l *lone) Write(b []byte) (int, error) { return l.out.Write(b) }
func (l *lone) Close() error                { return nil }

type hijacked struct {
	http.ResponseWriter
	nc net.Conn
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.nc, bufio.NewReadWriter(bufio.NewReader(h.nc), bufio.NewWriter(h.nc)), nil
}

func BenchmarkReadAMessage(b *testing.B) {
	for _, n := range []int{20, 128, 4096} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			frame := clientFrame(0x81, strings.Repeat("x", n))
			buf := make([]byte, len(frame))
			var f frames
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, frame)
				f.next(buf)
				f.release()
			}
		})
	}
}
