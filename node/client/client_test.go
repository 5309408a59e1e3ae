package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/node/wire"
)

// A log collects what a room's handler is told.
type log struct{ events []Event }

func (l *log) handle(e Event) { l.events = append(l.events, e) }

// said are the texts of the messages, with "gap" and "live" between.
func (l *log) said() string {
	synctest.Wait()
	var words []string
	for _, e := range l.events {
		switch e := e.(type) {
		case Message:
			words = append(words, e.Text)
		case Gap:
			words = append(words, "gap")
		case Live:
			words = append(words, "live")
		}
	}
	return strings.Join(words, " ")
}

// join joins the lobby, whose newest message is last.
func join(t *testing.T, c *Client, fc *fakeConn, last ID, o JoinOptions) *Room {
	t.Helper()
	var r *Room
	done := make(chan error)
	go func() {
		var err error
		r, err = c.Join(t.Context(), "lobby", o)
		done <- err
	}()
	fc.joined(last)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return r
}

// post sends texts and collects what comes of them.
func post(r *Room, texts ...string) *outcomes {
	o := &outcomes{results: map[string]string{}}
	for _, text := range texts {
		r.SendAsync(Draft{Text: text, Key: "key of " + text}, func(i ID, err error) {
			o.results[text] = i.String()
			if err != nil {
				o.results[text] = err.Error()
			}
		})
	}
	return o
}

type outcomes struct{ results map[string]string }

func (o *outcomes) of(text string) string {
	synctest.Wait()
	return o.results[text]
}

// wantSends reads sends of those texts, in order, each with its key.
func wantSends(t *testing.T, fc *fakeConn, texts ...string) (sends []wire.Request) {
	t.Helper()
	for _, text := range texts {
		s := fc.want("send")
		if s.Text != text || s.Key != "key of "+text {
			t.Fatalf("%q was sent with the key %q, want %q", s.Text, s.Key, text)
		}
		sends = append(sends, s)
	}
	return sends
}

func TestASendReturnsTheIDOnceItIsAcknowledged(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		got := make(chan ID)
		go func() {
			i, err := r.Send(t.Context(), "hello")
			if err != nil {
				t.Error(err)
			}
			got <- i
		}()
		s := fc.want("send")
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("Send returned before the answer")
		default:
		}
		if s.Room != "lobby" || s.Text != "hello" || s.Key == "" {
			t.Errorf("sent %+v", s)
		}
		fc.say(wire.Sent{Req: s.Req, ID: ID{Ms: 7, Seq: 1}})
		if i := <-got; i != (ID{Ms: 7, Seq: 1}) {
			t.Errorf("Send returned %v", i)
		}
	})
}

func TestWhatIsNotAcknowledgedIsRepeatedInOrderWithTheSameKey(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{Ms: 1}, JoinOptions{})
		o := post(r, "a", "b", "c", "d")
		sends := wantSends(t, fc, "a", "b", "c", "d")
		fc.say(wire.Sent{Req: sends[1].Req, ID: ID{Ms: 3}})
		synctest.Wait()
		fc.cut()

		fc = n.next()
		if hello := fc.welcome(); hello.Session != "secret" {
			t.Errorf("came back as %+v", hello)
		}
		o2 := post(r, "e") // said while away, it comes after what was said before
		if j := fc.joined(ID{Ms: 3}); j.Since == nil || *j.Since != (ID{Ms: 1}) {
			t.Errorf("came back with since %v", j.Since)
		}
		for i, s := range wantSends(t, fc, "a", "c", "d", "e") {
			fc.say(wire.Sent{Req: s.Req, ID: ID{Ms: uint64(10 + i)}})
		}
		if o.of("a") != "10-0" || o.of("b") != "3-0" || o.of("c") != "11-0" || o.of("d") != "12-0" || o2.of("e") != "13-0" {
			t.Errorf("got %v, %v", o.results, o2.results)
		}
	})
}

func TestAConnectionCutBeforeTheJoinIsAnsweredLosesNothing(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		joined := make(chan *Room)
		go func() {
			r, err := c.Join(t.Context(), "lobby", JoinOptions{})
			if err != nil {
				t.Error(err)
			}
			joined <- r
		}()
		fc.want("join")
		fc.cut()
		fc = n.next()
		fc.cut() // and before the welcome
		fc = n.next()
		fc.welcome()
		fc.want("join")
		fc.cut()
		fc = n.next()
		fc.welcome()
		fc.joined(ID{})
		o := post(<-joined, "a")
		wantSends(t, fc, "a")
		fc.cut() // and before the send is answered
		fc = n.next()
		fc.welcome()
		fc.want("join")
		fc.cut() // and before the send is repeated
		fc = n.next()
		fc.welcome()
		fc.joined(ID{})
		s := wantSends(t, fc, "a")
		fc.say(wire.Sent{Req: s[0].Req, ID: ID{Ms: 5}})
		if o.of("a") != "5-0" {
			t.Errorf("got %v", o.results)
		}
	})
}

func TestResumesAfterTheLastMessageSeen(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		var l log
		none := 0
		join(t, c, fc, ID{Ms: 40}, JoinOptions{Handle: l.handle, Limit: &none})
		expect := func(since ID) {
			t.Helper()
			fc.cut()
			fc = n.next()
			fc.welcome()
			j := fc.want("join")
			if j.Since == nil || *j.Since != since || j.Limit != nil {
				t.Errorf("came back with since %v, limit %v, want %v", j.Since, j.Limit, since)
			}
			yes := true
			fc.say(wire.Joined{Req: j.Req, Room: "lobby", Last: ID{Ms: 99}, Recovered: &yes})
		}
		expect(ID{Ms: 40}) // nothing was said: where the room was when it was joined
		fc.message("lobby", "you", "", "a", ID{Ms: 50})
		fc.message("lobby", "you", "", "b", ID{Ms: 60, Seq: 9})
		l.said()
		expect(ID{Ms: 60, Seq: 9}) // in the middle of the backlog
		fc.message("lobby", "you", "", "b", ID{Ms: 60, Seq: 9})
		fc.message("lobby", "you", "", "c", ID{Ms: 60, Seq: 10})
		fc.say(wire.Live{Room: "lobby"})
		fc.message("lobby", "you", "", "d", ID{Ms: 70})
		fc.say(wire.Gap{Room: "lobby", After: ID{Ms: 70}, Last: ID{Ms: 80}})
		if got := l.said(); got != "a b c live d gap" {
			t.Errorf("heard %q", got)
		}
		expect(ID{Ms: 80}) // what followed the gap is not to be missed either
		synctest.Wait()
		for _, e := range l.events {
			if m, ok := e.(Message); ok && m.Live != (m.Text == "d") {
				t.Errorf("%s is live: %v", m.Text, m.Live)
			}
		}
	})
}

func TestRepeatsAreDroppedBySenderAndKey(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		var l log
		join(t, c, fc, ID{}, JoinOptions{Handle: l.handle})
		fc.message("lobby", "you", "k", "a", ID{Ms: 5})
		fc.message("lobby", "you", "k", "a", ID{Ms: 6})      // the log lost the first copy
		fc.message("lobby", "she", "k", "b", ID{Ms: 7})      // another's key
		fc.message("lobby", "you", "", "c", ID{Ms: 8})       // plain clients have no keys
		fc.message("lobby", "you", "", "d", ID{Ms: 9})       //
		fc.message("lobby", "you", "", "d", ID{Ms: 9})       // the same id
		fc.message("lobby", "you", "", "out", ID{Ms: 4})     // out of order
		fc.say(wire.Gap{Room: "lobby", After: ID{Ms: 3}})    //
		fc.message("lobby", "you", "", "e", ID{Ms: 4})       // the order starts anew
		fc.message("lobby", "you", "k", "a", ID{Ms: 5})      // but this was here,
		fc.message("lobby", "you", "", "d", ID{Ms: 9})       // and this
		fc.message("lobby", "me", "mine", "f", ID{Ms: 1000}) //
		if got := l.said(); got != "a b c d gap e f" {
			t.Errorf("heard %q", got)
		}
		if !l.events[len(l.events)-1].(Message).Mine || l.events[1].(Message).Mine {
			t.Errorf("f is mine, a is not: %+v", l.events)
		}
		l.events = nil
		for _, minutes := range []time.Duration{1, 11, 13, 14} { // no repeat comes later than a key lives: then it is said anew
			fc.message("lobby", "you", "report", "it is there", ID{Ms: uint64((minutes * time.Minute).Milliseconds())})
		}
		if got := l.said(); got != "it is there it is there" {
			t.Errorf("heard %q", got)
		}
	})
}

func TestAfterTroubleAllIsRepeatedInOrder(t *testing.T) {
	for _, code := range []wire.Code{wire.Unavailable, wire.RateLimited} {
		withFakeNode(t, func(t *testing.T, n *fakeNode) {
			c, fc := n.dial(n.options())
			r := join(t, c, fc, ID{}, JoinOptions{})
			o := post(r, "a", "b", "c")
			sends := wantSends(t, fc, "a", "b", "c")
			began := time.Now()
			fc.say(wire.Reject{Req: sends[0].Req, Err: &wire.Error{Code: code, RetryAfter: 10 * time.Second}})
			synctest.Wait()
			o2 := post(r, "d") // waits for its turn
			fc.say(wire.Reject{Req: sends[2].Req, Err: &wire.Error{Code: code}})
			fc.say(wire.Reject{Req: sends[1].Req, Err: &wire.Error{Code: code}})
			for i, s := range wantSends(t, fc, "a", "b", "c", "d") {
				fc.say(wire.Sent{Req: s.Req, ID: ID{Ms: uint64(i)}})
			}
			if waited := time.Since(began); waited < 10*time.Second || waited > 11*time.Second {
				t.Errorf("waited %v, as the node asked for 10 s", waited)
			}
			if o.of("a") != "0-0" || o.of("b") != "1-0" || o.of("c") != "2-0" || o2.of("d") != "3-0" {
				t.Errorf("got %v, %v", o.results, o2.results)
			}
		})
	}
}

func TestWhoIsNotJoinedAnyMoreJoinsAgain(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		o := post(r, "a", "b")
		s := wantSends(t, fc, "a", "b")
		for i := range s {
			fc.say(wire.Reject{Req: s[i].Req, Err: wire.Errorf(wire.NotJoined, "join first")})
		}
		fc.joined(ID{}) // once
		s = wantSends(t, fc, "a", "b")
		fc.say(wire.Sent{Req: s[0].Req, ID: ID{Ms: 2}})
		if o.of("a") != "2-0" {
			t.Errorf("got %v", o.results)
		}
	})
}

func TestAFinalErrorIsReturnedAndTheOthersGoOn(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		errs := make(chan error)
		go func() {
			_, err := r.Say(t.Context(), Draft{Text: "a", Key: "key of a"})
			errs <- err
		}()
		s := wantSends(t, fc, "a")
		o := post(r, "b")
		fc.say(wire.Reject{Req: s[0].Req, Err: wire.Errorf(wire.Conflict, "the key was used before")})
		if e, ok := errors.AsType[*wire.Error](<-errs); !ok || e.Code != wire.Conflict {
			t.Errorf("got %v", e)
		}
		s = wantSends(t, fc, "b")
		fc.say(wire.Sent{Req: s[0].Req, ID: ID{Ms: 2}})
		if o.of("b") != "2-0" {
			t.Errorf("got %v", o.results)
		}
		for text, want := range map[string]wire.Code{strings.Repeat("x", 4097): wire.TooLarge, "": wire.BadRequest, "\xff": wire.BadRequest} {
			_, err := r.Send(t.Context(), text)
			if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != want {
				t.Errorf("Send(%.3q) = %v, want %s", text, err, want)
			}
		}
		big := []byte(`"` + strings.Repeat("x", wire.MaxFrame) + `"`)
		if _, err := r.Say(t.Context(), Draft{Data: big}); err == nil || !strings.Contains(err.Error(), "too_large") {
			t.Errorf("a frame too large: %v", err)
		}
		if _, err := r.Say(t.Context(), Draft{Data: []byte(`{"a":`)}); err == nil {
			t.Error("what is not JSON was sent")
		}
		if err := r.Signal(t.Context(), "draws", big); err == nil || !strings.Contains(err.Error(), "too_large") {
			t.Errorf("a signal too large: %v", err)
		}
	})
}

func TestAJoinThatIsRefusedIsReturned(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		errs := make(chan error)
		start := func() {
			go func() {
				_, err := c.Join(t.Context(), "lobby", JoinOptions{})
				errs <- err
			}()
		}
		start()
		j := fc.want("join")
		fc.say(wire.Reject{Req: j.Req, Err: &wire.Error{Code: wire.Unavailable, RetryAfter: time.Second}})
		for _, code := range []wire.Code{wire.Forbidden, wire.Unauthorized, wire.Expired} {
			j = fc.want("join") // again
			fc.say(wire.Reject{Req: j.Req, Err: wire.Errorf(code, "members only")})
			if e, ok := errors.AsType[*wire.Error](<-errs); !ok || e.Code != code {
				t.Errorf("got %v", e)
			}
			start() // the room is free again
		}
		fc.joined(ID{})
		if err := <-errs; err != nil {
			t.Error(err)
		}
		if _, err := c.Join(t.Context(), "lobby", JoinOptions{}); err == nil {
			t.Error("joined twice")
		}
		if _, err := c.Join(t.Context(), "", JoinOptions{}); err == nil {
			t.Error("joined a room without a name")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { errs <- func() error { _, err := c.Join(ctx, "slow", JoinOptions{}); return err }() }()
		fc.want("join")
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		fc.want("leave")
	})
}

func TestAtMostAWindowOfSendsIsUnanswered(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		var texts []string
		for i := range 3 * window {
			texts = append(texts, fmt.Sprint(i))
		}
		o := post(r, texts...)
		sends := wantSends(t, fc, texts[:window]...)
		synctest.Wait()
		if c.mu.Lock(); len(c.link.out) > 0 || r.outbox.open != window {
			t.Errorf("%d sends on their way", r.outbox.open)
		}
		c.mu.Unlock()
		for i := range texts {
			fc.say(wire.Sent{Req: sends[i].Req, ID: ID{Ms: uint64(i)}})
			if i+window < len(texts) {
				sends = append(sends, wantSends(t, fc, texts[i+window])...)
			}
		}
		for i, text := range texts {
			if got := o.of(text); got != fmt.Sprintf("%d-0", i) {
				t.Errorf("%s got %s", text, got)
			}
		}
	})
}

func TestAfterTheLifeOfAKeyASendIsNotRepeated(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		o := post(r, "a")
		wantSends(t, fc, "a")
		n.set(func() { n.away = true })
		fc.cut()
		synctest.Wait()
		o2 := post(r, "b") // never tried: it can wait
		time.Sleep(KeyLife + time.Second)
		n.set(func() { n.away = false })
		fc = n.next()
		fc.welcome()
		fc.joined(ID{})
		wantSends(t, fc, "b")
		if o.of("a") != ErrUnconfirmed.Error() || o2.of("b") != "" {
			t.Errorf("got %v, %v", o.results, o2.results)
		}
	})
}

func TestOptionsSayWhoMakesKeysAndWhoIsToldOfErrors(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		var told bytes.Buffer
		o := n.options()
		o.Key = func() string { return "a key of one's own" }
		o.Log = slog.New(slog.NewTextHandler(&told, nil))
		c, fc := n.dial(o)
		r := join(t, c, fc, ID{}, JoinOptions{})
		r.SendAsync(Draft{Text: "a"}, func(ID, error) {})
		if s := fc.want("send"); s.Key != o.Key() {
			t.Errorf("sent with the key %q", s.Key)
		}
		fc.say(wire.Reject{Err: wire.Errorf(wire.BadRequest, "whose?")})
		if synctest.Wait(); !strings.Contains(told.String(), "whose?") {
			t.Errorf("the log has %q", told.String())
		}
	})
}

func TestWhoLeavesOrClosesIsToldWhatIsNotAcknowledged(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		var l log
		r := join(t, c, fc, ID{}, JoinOptions{Handle: l.handle})
		o := post(r, "a")
		s := wantSends(t, fc, "a")
		left := make(chan error)
		go func() { left <- r.Leave(t.Context()) }()
		leave := fc.want("leave")
		synctest.Wait()
		select {
		case <-left:
			t.Error("Leave returned before the answer")
		default:
		}
		fc.message("lobby", "you", "", "late", ID{Ms: 9})
		fc.say(wire.Sent{Req: s[0].Req, ID: ID{Ms: 9}})
		fc.say(wire.OK{Req: leave.Req})
		if err := <-left; err != nil || o.of("a") != ErrLeft.Error() || l.said() != "" {
			t.Errorf("%v, %v, heard %q", err, o.results, l.said())
		}
		if _, err := r.Send(t.Context(), "x"); !errors.Is(err, ErrLeft) {
			t.Errorf("sent after leaving: %v", err)
		}
		if err := r.Leave(t.Context()); err != nil {
			t.Error(err)
		}

		joined := make(chan error)
		go func() {
			var err error
			r, err = c.Join(t.Context(), "lobby", JoinOptions{Handle: l.handle})
			joined <- err
		}()
		j := fc.want("join")
		fc.message("lobby", "you", "", "of the earlier stay", ID{Ms: 10})
		fc.say(wire.Joined{Req: j.Req, Room: "lobby"})
		if err := <-joined; err != nil || l.said() != "" {
			t.Errorf("%v, heard %q", err, l.said())
		}
		o = post(r, "b")
		wantSends(t, fc, "b")
		go fc.drain()
		c.Close()
		if o.of("b") != ErrClosed.Error() {
			t.Errorf("got %v", o.results)
		}
		if _, err := c.Join(t.Context(), "other", JoinOptions{}); !errors.Is(err, ErrClosed) {
			t.Errorf("joined after Close: %v", err)
		}
		if len(n.dialled()) != 1 {
			t.Errorf("connected %d times", len(n.dialled()))
		}
	})
}

func TestASendWhoseContextEndsIsNotRepeated(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := make(chan error)
		go func() { errs <- func() error { _, err := r.Say(ctx, Draft{Text: "a", Key: "key of a"}); return err }() }()
		wantSends(t, fc, "a")
		o := post(r, "b")
		wantSends(t, fc, "b")
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		fc.cut()
		fc = n.next()
		fc.welcome()
		fc.joined(ID{})
		s := wantSends(t, fc, "b")
		fc.say(wire.Sent{Req: s[0].Req, ID: ID{Ms: 4}})
		if o.of("b") != "4-0" {
			t.Errorf("got %v", o.results)
		}
	})
}

func TestQuestionsAreAskedAgainAndSignalsAreNot(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		type answer struct {
			messages []wire.Entry
			more     bool
			err      error
		}
		answers := make(chan answer)
		go func() {
			m, more, err := r.History(t.Context(), &ID{Ms: 9}, 2)
			answers <- answer{m, more, err}
		}()
		h := fc.want("history")
		fc.say(wire.Reject{Req: h.Req, Err: wire.Errorf(wire.Unavailable, "later")})
		fc.want("history")
		fc.cut()
		fc = n.next()
		fc.welcome()
		reqs := []wire.Request{fc.want("join"), fc.want("history")}
		fc.say(wire.Joined{Req: reqs[0].Req, Room: "lobby"})
		entry := wire.AppendEntry(nil, ID{Ms: 8}, wire.Said{Room: "lobby", From: wire.Member{ID: "u"}, Text: "x"}.Body())
		fc.say(wire.History{Req: reqs[1].Req, Room: "lobby", Messages: [][]byte{entry}, More: true})
		want := []wire.Entry{{ID: ID{Ms: 8}, From: wire.Member{ID: "u"}, Text: "x"}}
		if a := <-answers; a.err != nil || !a.more || !reflect.DeepEqual(a.messages, want) || *reqs[1].Before != (ID{Ms: 9}) || *reqs[1].Limit != 2 {
			t.Errorf("got %+v for %+v", a, reqs[1])
		}

		errs := make(chan error)
		signal := func() { errs <- r.Signal(t.Context(), "typing", nil) }
		go signal()
		s := fc.want("signal")
		fc.say(wire.OK{Req: s.Req})
		if err := <-errs; err != nil {
			t.Error(err)
		}
		go signal()
		fc.want("signal")
		fc.cut()
		if err := <-errs; !errors.Is(err, ErrLost) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhatIsNoFrameEndsTheConnectionNotTheClient(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		var l log
		join(t, c, fc, ID{}, JoinOptions{Handle: l.handle})
		fc.raw([]byte(`{"op":"news","room":"lobby"}`)) // a newer node's
		fc.raw([]byte(`{"op":"error","code":"bad_request","message":"whose?"}`))
		fc.raw([]byte(`{"op":"ok","req":4711}`))
		fc.message("lobby", "you", "", "a", ID{Ms: 1})
		if l.said() != "a" || slices.Contains(l.events, nil) {
			t.Errorf("heard %q, of %v", l.said(), l.events)
		}
		began := time.Now()
		fc.raw([]byte(`nonsense`))
		fc = n.next()
		if took := time.Since(began); took > time.Second { // silence would end it too
			t.Errorf("it was ended after %v", took)
		}
		fc.welcome()
		fc.joined(ID{})
	})
}
