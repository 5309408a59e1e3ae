package redis

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A name is what a user is called since a moment of Redis's clock, in ms since 1970. Of two names the later counts.
type name struct {
	text string
	at   int64
}

func (n name) laterThan(o name) bool { return n.at > o.at || n.at == o.at && n.text > o.text }

// value is how Redis has it.
func (n name) value() string { return strconv.FormatInt(n.at, 10) + " " + n.text }

func parseName(value string) name {
	at, text, _ := strings.Cut(value, " ")
	ms, _ := strconv.ParseInt(at, 10, 64)
	return name{text, ms}
}

// takeOverLocked has the later name of a user outlive the connection that brought it.
func (ro *roster) takeOverLocked(u userChange) {
	if w, in := ro.want[u.id]; in && u.name.laterThan(w.name) {
		w.name = u.name
		ro.want[u.id] = w
		ro.changedLocked(u.id)
	}
}

// keptLocked is called when a user who is there has another name in one of the incarnations, or is not in it any more. It notes
// whether one of them has the name that counts.
func (ro *roster) keptLocked(user string, has name) {
	is := ro.users[user].name
	kept := has == is
	for _, s := range ro.sets {
		if kept {
			break
		}
		kept = s.users[user] == is
	}
	if kept {
		delete(ro.unkept, user)
		return
	}
	if ro.unkept == nil {
		ro.unkept = make(map[string]time.Time)
	}
	if ro.unkept[user].IsZero() {
		ro.unkept[user] = time.Now()
	}
}

// remind gives the names, at most so many, that nobody has kept for long, as "sign length length id value" each: whoever has those
// users has missed that they have been called so.
func (ro *roster) remind(most int) (names []byte) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for user, since := range ro.unkept {
		if time.Since(since) < ro.bus.cfg.CompareInterval { // it is on its way
			continue
		}
		if most--; most < 0 {
			break
		}
		value := ro.users[user].value()
		names = fmt.Appendf(names, "+%d %d %s%s", len(user), len(value), user, value)
	}
	return names
}

// learn takes names that another node reminds us of.
func (ro *roster) learn(users []userChange) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, u := range users {
		ro.takeOverLocked(u)
	}
}
