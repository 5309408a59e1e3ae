package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"

	"parley/node/client"
	"parley/node/wire"
)

// openView gives a terminal's view if there is a terminal to read from and to write to, and a pipe's otherwise; and how many
// messages from before are usual there.
func openView(in io.Reader, out, errw io.Writer, room string, asJSON bool) (v view, history int, err error) {
	inFile, ok1 := in.(*os.File)
	outFile, ok2 := out.(*os.File)
	if asJSON || !ok1 || !ok2 || !term.IsTerminal(int(inFile.Fd())) || !term.IsTerminal(int(outFile.Fd())) {
		p := &pipe{in: in, out: out, errw: errw, room: room, json: asJSON, gone: make(chan struct{}), scanner: bufio.NewScanner(in)}
		p.scanner.Buffer(nil, wire.MaxFrame)
		return p, 0, nil
	}
	old, err := term.MakeRaw(int(inFile.Fd()))
	if err != nil {
		return nil, 0, fmt.Errorf("set up the terminal: %w", err)
	}
	t := &terminal{in: inFile, out: outFile, old: old}
	t.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, out}, "> ")
	return t, 20, nil
}

// A pipe reads lines and prints messages, one a line. What is for people goes to errw.
type pipe struct {
	in      io.Reader
	errw    io.Writer
	room    string
	json    bool
	scanner *bufio.Scanner // owned by readLine

	mu   sync.Mutex
	out  io.Writer     // guarded by mu
	gone chan struct{} // closed under mu, when out takes nothing any more
}

func (p *pipe) readLine() (string, error) {
	if p.scanner.Scan() {
		return p.scanner.Text(), nil
	}
	if err := p.scanner.Err(); errors.Is(err, bufio.ErrTooLong) {
		return "", fmt.Errorf("a line is longer than %d bytes", wire.MaxFrame)
	} else if err != nil {
		return "", err
	}
	return "", io.EOF
}

func (p *pipe) message(m *client.Message) {
	line := who(m.From) + ": " + said(m)
	if p.json {
		line = jsonLine(p.room, m)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := io.WriteString(p.out, line+"\n"); err == nil {
		return
	}
	select {
	case <-p.gone:
	default:
		close(p.gone)
	}
}

func (p *pipe) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.errw, "parley: "+format+"\n", args...)
}

func (p *pipe) broken() <-chan struct{} { return p.gone }

// close ends readLine, where the input can be closed.
func (p *pipe) close() {
	if c, ok := p.in.(io.Closer); ok {
		c.Close()
	}
}

// A terminal has a prompt, above which the room goes by.
type terminal struct {
	in, out *os.File
	old     *term.State
	term    *term.Terminal // its methods may be called concurrently
}

func (t *terminal) readLine() (string, error) { return t.term.ReadLine() }

func (t *terminal) message(m *client.Message) {
	t.print("%s %s%s:%s %s", time.UnixMilli(m.At).Format("15:04"), bold, who(m.From), plain, said(m))
}

func (t *terminal) note(format string, args ...any) {
	t.print(dim+"* "+format+plain, args...)
}

// What makes text bold, dim and plain again (ECMA-48 section 8.3.117).
const bold, dim, plain = "\x1b[1m", "\x1b[2m", "\x1b[0m"

// print writes a line above the prompt, as wide as the terminal is now.
func (t *terminal) print(format string, args ...any) {
	if w, h, err := term.GetSize(int(t.out.Fd())); err == nil && w > 0 {
		t.term.SetSize(w, h)
	}
	fmt.Fprintf(t.term, format+"\n", args...)
}

func (t *terminal) broken() <-chan struct{} { return nil }

func (t *terminal) close() {
	term.Restore(int(t.in.Fd()), t.old)
	fmt.Fprintln(t.out)
	t.in.Close()
}

// who is a user's name, or else id, fit to be shown.
func who(m wire.Member) string { return clean(cmp.Or(m.Name, m.ID)) }

// said is a message's text, fit to be shown, or else its data.
func said(m *client.Message) string {
	if m.Text == "" {
		return clean(string(m.Data))
	}
	return clean(m.Text)
}

// jsonLine is a message as it was on the wire. What a terminal would act on is escaped.
func jsonLine(room string, m *client.Message) string {
	frame := wire.AppendMessage(nil, m.ID, wire.Said{
		Room: room, From: m.From, Text: m.Text, Data: m.Data, Key: m.Key, At: m.At,
	}.Body())
	var b strings.Builder
	for _, r := range string(frame) {
		if harmful(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// clean makes what others wrote one line that does nothing to a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ':
			return '\u2400' + r // the picture of it
		case r == '\x7f':
			return '\u2421'
		case harmful(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// harmful reports whether a terminal may act on r: control characters, breaks of line, and what turns the direction of text
// that is not its own.
func harmful(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069'
}
