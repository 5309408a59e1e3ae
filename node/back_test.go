package node

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"parley/bus"
	"parley/bus/memory"
)

// A left is a subscription that notes who leaves.
type left struct {
	bus.Subscription
	users []string
}

func (l *left) Leave(user string) { l.users = append(l.users, user) }

// The end of a grace may meet somebody who has just come back.
func TestWhoIsBackAsTheGraceEndsStays(t *testing.T) {
	sub := &left{}
	r := &room{sub: sub, users: map[string]*attendance{"back": {conns: 1}, "gone": {}}}
	for _, user := range []string{"back", "gone", "unknown"} {
		r.leave(user) // as the timer does
	}
	if len(sub.users) != 1 || sub.users[0] != "gone" || r.users["back"] == nil {
		t.Errorf("%v have left", sub.users)
	}
}

// A request that waited for its turn while its stream ended is not carried out: nobody would leave the room that it joins.
func TestNothingIsDoneForAStreamThatHasEnded(t *testing.T) {
	s := New(Config{Bus: memory.New(bus.Retention{}).Open(bus.NoObserver{})})
	defer s.Shutdown(context.Background())
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	sess := s.newSession(sse, s.sockets.Stream(theirs, nil), identity{user: User{ID: "ada", Guest: true}})
	sess.stream = s.newStream()
	close(sess.ended)
	sess.carryOutFrame([]byte(`{"op":"join","room":"late"}`))
	if len(sess.rooms) > 0 {
		t.Errorf("it is in %v", sess.rooms)
		for _, m := range sess.rooms {
			m.r.dismiss(m, false)
		}
	}
	sess.conn.Abort(0)
}

// greedy notes how much is drawn at a time.
type greedy struct {
	bus.Bus
	most int
}

func (g *greedy) Draw(ctx context.Context, bucket string, n int, rate float64, burst int) (int, error) {
	g.most = max(g.most, n)
	return g.Bus.Draw(ctx, bucket, n, rate, burst)
}

// However long a user goes on, a node draws no more at a time than the user may say in a second: the rest is for other nodes.
func TestANodeLeavesOthersWhatAUserMaySayThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 60
		b := &greedy{Bus: memory.New(bus.Retention{}).Open(bus.NoObserver{})}
		s := &Server{cfg: Config{Bus: b, Limits: Limits{UserMessages: most}}.withDefaults()}
		s.ctx, s.cancel = context.WithCancel(t.Context())
		defer s.cancel()
		who := identity{user: User{ID: "ada"}, grant: &Grant{User: User{ID: "ada"}}}
		for range 15 * most {
			s.spend(&who)
			time.Sleep(time.Second / most)
			synctest.Wait() // for a draw
		}
		if b.most == 0 || b.most > most {
			t.Errorf("it draws %d at a time, of %d a second", b.most, most)
		}
	})
}
