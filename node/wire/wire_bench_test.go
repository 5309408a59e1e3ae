package wire

import (
	"strings"
	"testing"

	"parley/bus/id"
)

var (
	text120  = strings.Repeat("What is said in rooms. ", 6)[:120]
	sendLine = []byte(`{"op":"send","req":17,"room":"lobby","text":"` + text120 + `","key":"c0ffee-17"}`)
	said     = Said{
		Origin: Origin{Conn: 1, Seq: 2}, Room: "lobby", From: Member{ID: "guest-0123456789abcdef", Name: "Ada"},
		Text: text120, Key: "c0ffee-17", At: 1763812800000,
	}
	someID = id.ID{Ms: 1763812800000, Seq: 4711}
)

func BenchmarkParseSend(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(sendLine, 4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSaidBody(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		said.Body()
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	body, buf := said.Body(), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendMessage(buf[:0], someID, body)
	}
}

func BenchmarkText(b *testing.B) {
	body := said.Body()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Text(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseFrame(b *testing.B) {
	frame := AppendMessage(nil, someID, said.Body())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFrame(frame); err != nil {
			b.Fatal(err)
		}
	}
}
