package node

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/memory"
)

// posting notes until when what is posted stands on the board.
type posting struct {
	bus.Bus
	until map[string]time.Time // by what is posted
}

func (p posting) Post(ctx context.Context, text string, until time.Time) error {
	p.until[text] = until
	return p.Bus.Post(ctx, text, until)
}

// noticed is what a node knows that has read the board of a bus.
func noticed(t *testing.T, b bus.Bus, notices ...string) (*Server, *revoked) {
	t.Helper()
	s := New(Config{Bus: b, TokenLife: 48 * time.Hour})
	s.board.begin()
	t.Cleanup(func() { s.Shutdown(t.Context()) })
	for _, n := range notices {
		if err := b.Post(t.Context(), noticePrefix+n, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.board.read(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s, s.board.revoked.Load()
}

func openBoard() bus.Bus { return memory.New(bus.Retention{}).Open(bus.NoObserver{}) }

// Of several revocations of one user's tokens the latest time counts, in whatever order they are read; those of everyone's are of tokens,
// not of guests, who have none.
func TestWhatARevocationHits(t *testing.T) {
	t.Parallel()
	user := func(before int) string { return fmt.Sprintf(`{"revoke":true,"user":"ada","before":%d}`, before) }
	of := func(id string, ms int64) *Grant { return &Grant{User: User{ID: id}, Issued: time.UnixMilli(ms)} }
	for _, order := range [][]string{{user(1000), user(3000), user(2000)}, {user(3000), user(1000)}, {user(2000), user(3000)}} {
		_, r := noticed(t, openBoard(), order...)
		if !r.hits(of("ada", 2999)) || r.hits(of("ada", 3000)) || r.hits(of("bob", 1)) {
			t.Errorf("after %v not those before 3000, of ada, are revoked", order)
		}
	}
	_, r := noticed(t, openBoard(), `{"revoke":true,"before":1000}`, `{"revoke":true,"before":500}`)
	guest := &Grant{User: User{ID: guestPrefix + "a", Guest: true}, Issued: time.UnixMilli(1)}
	if !r.hits(of("ada", 999)) || r.hits(of("ada", 1000)) || r.hits(guest) || r.hits(&Grant{User: User{ID: "app"}}) {
		t.Error("not all tokens from before 1000, and nothing else, are revoked")
	}
	if _, r = noticed(t, openBoard(), `{"revoke":true,"user":"`+guest.User.ID+`","before":1000}`); !r.hits(guest) {
		t.Error("a guest cannot be revoked")
	}
}

// A revocation stands on the board as long as a token may live, and no longer; a disconnect for a minute.
func TestANoticeHasAnEnd(t *testing.T) {
	t.Parallel()
	p := posting{openBoard(), make(map[string]time.Time)}
	s, _ := noticed(t, p)
	began := time.Now()
	for _, ask := range []func() error{
		func() error { // which errors only if it is refused
			if bad := s.revoke(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader("{}")), "ada"); bad != nil {
				return bad
			}
			return nil
		},
		func() error {
			r := httptest.NewRequest("POST", "/", nil)
			r.SetPathValue("user", "ada")
			if bad := s.disconnect(httptest.NewRecorder(), r, identity{}); bad != nil {
				return bad
			}
			return nil
		},
	} {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	for text, until := range p.until {
		want := 48 * time.Hour
		if strings.Contains(text, "disconnect") {
			want = time.Minute
		}
		if until.Before(began.Add(want)) || until.After(time.Now().Add(want)) {
			t.Errorf("%s stands until %s from now, want %s", text, time.Until(until), want)
		}
	}
	if len(p.until) != 2 {
		t.Errorf("there are %d notices, want 2", len(p.until))
	}
}

// What a node does not understand on the board, as it is of a newer version, it passes over as a whole.
func TestWhatIsNotUnderstoodOnTheBoardRevokesNothing(t *testing.T) {
	t.Parallel()
	b := openBoard()
	if err := b.Post(t.Context(), `{"revoke":true,"before":1000}`, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, r := noticed(t, b, `{"revoke":true,"before":1000,"user":{"id":"ada"}}`, `{"user":"ada","before":1000}`, `{"token":"x"}`, `nonsense`); r != nil {
		t.Errorf("revoked is %+v", r)
	}
}

// A bareBoard is a bus on whose board nothing was ever posted, and which has no version of that.
type bareBoard struct{ bus.Bus }

func (bareBoard) Posted(context.Context, string) ([]string, string, error) { return nil, "", nil }

func TestABoardOnWhichNothingStandsIsRead(t *testing.T) {
	t.Parallel()
	if s, r := noticed(t, bareBoard{openBoard()}); r != nil || !s.board.await(t.Context()) {
		t.Error("who has a token waits for the board")
	}
}
