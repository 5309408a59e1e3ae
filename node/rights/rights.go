// Package rights says what somebody may do in which rooms: patterns of rooms' names, and for each the verbs that are allowed. The
// table in README.md beside this file is its test.
package rights

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"parley/node/wire"
)

// Verbs are a set of what may be done in a room.
type Verbs uint16

// The verbs: those of the protocol's ops, and others that nothing asks for yet.
const (
	Join    Verbs = 1 << iota // be in the room: hear what is said from now on, and who comes and goes
	Send                      // say something
	Signal                    // signal something that is not kept
	History                   // read what was said before
	Members                   // ask who is there, without being there
	Kick
	Ban
	Mute
	Delete
	Manage

	All  = Manage<<1 - 1                            // "*"
	Read = Join | History | Members                 // "read"
	User = Join | Send | Signal | History | Members // what one may do where nothing is said of rights
)

var verbs = map[string]Verbs{
	"join": Join, "send": Send, "signal": Signal, "history": History, "members": Members,
	"kick": Kick, "ban": Ban, "mute": Mute, "delete": Delete, "manage": Manage,
	"*": All, "read": Read,
}

// Has reports whether a set has all of another.
func (v Verbs) Has(o Verbs) bool { return v&o == o }

// String lists the verbs, as in a token.
func (v Verbs) String() string {
	if v == All {
		return "*"
	}
	var names []string
	for _, name := range slices.SortedFunc(maps.Keys(verbs), func(a, b string) int { return cmp.Compare(verbs[a], verbs[b]) }) {
		if one := verbs[name]; one&(one-1) == 0 && v.Has(one) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Rights say what may be done in each room. They do not change. Nil stands for User in all rooms.
type Rights struct {
	exact    map[string]Verbs
	patterns []pattern // the most specific first
}

// A pattern is a room's name in which * stands for any run of characters, or none.
type pattern struct {
	text  string
	verbs Verbs
}

// Of says what may be done in a room: what the most specific pattern says that the name fits. A name without * comes before all
// patterns, and of patterns the one with more other characters; of two with as many the one with more before its first *, and then
// the one that sorts first. What fits none allows nothing.
func (r *Rights) Of(room string) Verbs {
	if r == nil {
		return User
	}
	if v, ok := r.exact[room]; ok {
		return v
	}
	for i := range r.patterns {
		if fits(r.patterns[i].text, room) {
			return r.patterns[i].verbs
		}
	}
	return 0
}

// fits reports whether a name fits a pattern.
func fits(pattern, name string) bool {
	star, from := -1, 0 // the last *, and where in the name what follows it was last tried
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// New makes Rights of patterns and verbs. A verb that this version does not know allows nothing.
func New(rooms map[string][]string) (*Rights, error) {
	r := &Rights{exact: make(map[string]Verbs)}
	for _, text := range slices.Sorted(maps.Keys(rooms)) {
		if bad := wire.CheckRoom(text); bad != nil {
			return nil, fmt.Errorf("the pattern %.40q: %s", text, bad.Message)
		}
		var v Verbs
		for _, name := range rooms[text] {
			v |= verbs[name]
		}
		if !strings.Contains(text, "*") {
			r.exact[text] = v
			continue
		}
		r.patterns = append(r.patterns, pattern{text, v})
	}
	slices.SortStableFunc(r.patterns, func(a, b pattern) int {
		return cmp.Or(cmp.Compare(literal(b.text), literal(a.text)), cmp.Compare(strings.Index(b.text, "*"), strings.Index(a.text, "*")))
	})
	return r, nil
}

func literal(pattern string) int { return len(pattern) - strings.Count(pattern, "*") }

// Parse reads the claim "rooms" of a token: an object of patterns, each with a list of verbs.
func Parse(claim json.RawMessage) (*Rights, error) {
	var rooms map[string][]string
	if err := json.Unmarshal(claim, &rooms); err != nil || rooms == nil {
		return nil, errors.New(`rooms has to be an object such as {"team-*":["join","send"]}`)
	}
	return New(rooms)
}

// ParseText reads rights as people write them, such as "team-*:read,send;news:join", into what New takes. Unlike in a token, a verb
// that is not known is an error.
func ParseText(text string) (map[string][]string, error) {
	rooms := make(map[string][]string)
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		at := strings.LastIndexByte(part, ':')
		if at < 1 {
			return nil, fmt.Errorf("%q is no room with verbs, such as team-*:read,send", part)
		}
		name := part[:at]
		if bad := wire.CheckRoom(name); bad != nil {
			return nil, errors.New(bad.Message)
		}
		for verb := range strings.SplitSeq(part[at+1:], ",") {
			verb = strings.TrimSpace(verb)
			if _, known := verbs[verb]; !known {
				return nil, fmt.Errorf("%q is no verb: there are join, send, signal, history, members, kick, ban, mute, delete, manage, read (join, history and members) and *", verb)
			}
			rooms[name] = append(rooms[name], verb)
		}
	}
	if len(rooms) == 0 {
		return nil, errors.New("there are no rooms with verbs, such as team-*:read,send")
	}
	return rooms, nil
}
