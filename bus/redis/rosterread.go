package redis

import (
	"errors"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A rosterChange is what members.lua publishes.
type rosterChange struct {
	version, steps uint64 // the versions up to version are the change's
	inc            string
	before, number uint64
	kind           byte // 'd', 'w', 'r', 'x'
	users          []userChange
	size           int // bytes that it takes, about
}

type userChange struct {
	entered bool
	id      string
	name    name
}

var errChange = errors.New("not a change of a roster")

// parseRosterChange reads "version steps incarnation before number kind", and for each user "sign length length id value".
func parseRosterChange(s string) (c rosterChange, err error) {
	f := strings.SplitN(s, " ", 6)
	if len(f) != 6 || f[5] == "" {
		return c, errChange
	}
	for i, n := range map[int]*uint64{0: &c.version, 1: &c.steps, 3: &c.before, 4: &c.number} {
		if *n, err = strconv.ParseUint(f[i], 10, 64); err != nil {
			return c, errChange
		}
	}
	c.inc, c.kind = f[2], f[5][0]
	c.users, err = parseUsers(f[5][1:])
	c.size = heldOverhead*(1+len(c.users)) + len(s)
	return c, err
}

// parseUsers reads for each user "sign length length id value".
func parseUsers(s string) (users []userChange, err error) {
	for s != "" {
		var u userChange
		u.entered = s[0] == '+'
		idLen, after, ok := cutNumber(s[1:])
		valueLen, after, ok2 := cutNumber(after)
		if !ok || !ok2 || idLen+valueLen > len(after) {
			return nil, errChange
		}
		u.id, u.name = after[:idLen], parseName(after[idLen:idLen+valueLen])
		users = append(users, u)
		s = after[idLen+valueLen:]
	}
	return users, nil
}

func cutNumber(s string) (n int, after string, ok bool) {
	digits, after, ok := strings.Cut(s, " ")
	n, err := strconv.Atoi(digits)
	return n, after, ok && err == nil && n >= 0 && n <= len(after)
}

// A rosterRead is what roster.lua answers.
type rosterRead struct {
	version uint64
	numbers map[string]uint64 // of the room's incarnations
	reaped  map[string]struct{}
	sets    map[string][]userChange // of those that were read
	counts  map[string]int
}

// readRoster asks for a room's roster, but for the incarnations that are known.
func (q *query) readRoster(k *roomKeys, most int, known map[string]uint64) *redis.Cmd {
	args := append(make([]any, 0, 6+2*len(known)), "evalsha", rosterSHA, 1, k.incarnations, k.usersBase, most)
	for inc, number := range known {
		args = append(args, inc, number)
	}
	return q.do(args...)
}

func parseRosterRead(cmd *redis.Cmd) (rd rosterRead, err error) {
	answer, err := cmd.Slice()
	if err != nil {
		return rd, err
	}
	if len(answer) == 0 {
		return rd, errChange
	}
	rd.version, rd.numbers, rd.reaped = parseIncarnations(answer[0])
	rd.sets, rd.counts = make(map[string][]userChange), make(map[string]int)
	for _, e := range answer[1:] {
		f, _ := e.([]any)
		if len(f) != 3 {
			return rd, errChange
		}
		inc, _ := f[0].(string)
		count, _ := f[1].(int64)
		flat, _ := f[2].([]any)
		users := make([]userChange, 0, len(flat)/2)
		for i := 0; i+1 < len(flat); i += 2 {
			id, _ := flat[i].(string)
			value, _ := flat[i+1].(string)
			users = append(users, userChange{entered: true, id: id, name: parseName(value)})
		}
		rd.sets[inc], rd.counts[inc] = users, int(count)
	}
	return rd, nil
}

// parseIncarnations reads the hash of a room's incarnations.
func parseIncarnations(hash any) (version uint64, numbers map[string]uint64, reaped map[string]struct{}) {
	flat, _ := hash.([]any)
	numbers, reaped = make(map[string]uint64, len(flat)/2), make(map[string]struct{})
	for i := 0; i+1 < len(flat); i += 2 {
		field, _ := flat[i].(string)
		value, _ := flat[i+1].(string)
		n, _ := strconv.ParseUint(value, 10, 64)
		switch {
		case field == "v":
			version = n
		case strings.HasPrefix(field, "x"):
			reaped[field[1:]] = struct{}{}
		default:
			numbers[field] = n
		}
	}
	return version, numbers, reaped
}
