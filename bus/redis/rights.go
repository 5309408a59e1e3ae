package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/bus"
	"parley/bus/redis/resp"
)

// A trial is a command that a node will need, tried at the start.
type trial struct {
	name    string // of the command
	on      string // what it is tried on
	command []byte
}

// trials do, on a room and an incarnation of their own, all that a node does to Redis. They leave nothing.
func (r *Bus) trials() []trial {
	name := r.tag() + randomName()
	k := keysOf(r.db, "start "+name)
	if tag := r.tag(); tag != "" {
		k = keysTagged(r.db, "", name)
	}
	users, lease, claim, rooms := k.usersOf(name), leaseKey(name), claimKey(name), roomsOfKey(name)
	beat := beatOf(r.tag())
	var trials []trial
	try := func(on, command string, args ...string) {
		trials = append(trials, trial{command, on, resp.Append(nil, append([]string{command}, args...)...)})
	}
	script := func(call []byte) { trials = append(trials, trial{"EVALSHA", "on keys parley:*", call}) }

	for _, text := range r.scripts.texts() {
		try("", "SCRIPT", "LOAD", text)
	}
	try("", "TIME")
	const ofRoom = "on keys parley:{*"
	try(ofRoom, "XADD", k.log, "NOMKSTREAM", "*", "m", "")
	try(ofRoom, "XTRIM", k.log, "MINID", "~", "0")
	try(ofRoom, "MEMORY", "USAGE", k.log, "SAMPLES", "0")
	try(ofRoom, "XINFO", "STREAM", k.log)
	try(ofRoom, "XRANGE", k.log, "-", "+", "COUNT", "1")
	try(ofRoom, "XREVRANGE", k.log, "+", "-", "COUNT", "1")
	try(ofRoom, "SET", k.last, "0-0", "PX", "10000")
	try(ofRoom, "GET", k.last)
	try(ofRoom, "PEXPIRE", k.last, "10000")
	for _, key := range []string{k.records[0], k.records[1], k.incarnations, users} {
		try(ofRoom, "HSET", key, "", "")
		try(ofRoom, "PEXPIREAT", key, fmt.Sprint(time.Now().Add(time.Minute).UnixMilli()))
		try(ofRoom, "HGET", key, "")
		try(ofRoom, "HLEN", key)
	}
	try(ofRoom, "HEXISTS", k.incarnations, "")
	try(ofRoom, "HGETALL", k.incarnations)
	try(ofRoom, "HINCRBY", k.incarnations, "v", "1")
	try(ofRoom, "HDEL", k.incarnations, "")
	try(ofRoom, "HRANDFIELD", users, "1", "WITHVALUES")
	try(ofRoom, "UNLINK", users)

	const ofNodes = "on keys parley:lease:*, parley:reap:*, parley:rooms:*, parley:incarnations, parley:layout"
	for _, key := range []string{lease, claim} {
		try(ofNodes, "SET", key, "1", "NX", "PX", "10000")
		try(ofNodes, "PEXPIRE", key, "10000")
		try(ofNodes, "EXISTS", key)
	}
	try(ofNodes, "SADD", rooms, "")
	try(ofNodes, "PEXPIRE", rooms, "10000")
	try(ofNodes, "SMEMBERS", rooms)
	try(ofNodes, "SCARD", rooms)
	try(ofNodes, "SREM", incarnationsKey(r.tag()), "")
	try(ofNodes, "EXISTS", incarnationsKey(r.tag()))
	try(ofNodes, "GET", layoutKey+r.tag())
	try(ofNodes, "PEXPIRE", layoutKey+r.tag(), fmt.Sprint(layoutLife.Milliseconds()))
	for _, key := range []string{lease, claim, rooms} {
		try(ofNodes, "DEL", key)
	}

	const channels = "channels parley:*"
	message := r.appendScript(nil, r.scripts.append, k, nil, 3)
	for _, arg := range []string{"", "0123456789abcdef", "01234567"} {
		message = resp.AppendArg(message, arg)
	}
	try("on "+channels, r.scripts.publish, k.channel, "")
	script(message)
	script(r.appendMend(nil, &trail{keys: k, known: []bus.ID{{}}}, bus.ID{}, ""))
	for _, key := range []string{k.log, k.last, k.lastBreak, k.records[0], k.records[1], k.incarnations, users} {
		try(ofRoom, "DEL", key)
	}
	try("on "+channels, r.scripts.publish, beat, "")
	try("to "+channels, r.scripts.subscribe, beat)
	try("to "+channels, r.scripts.subscribe, k.channel)
	try("", r.scripts.unsubscribe, k.channel)
	if r.tag() == "" { // which a Cluster has in one place only
		const ofBoard = "on keys parley:{%board}:*, parley:bucket:*, parley:count:*"
		texts, version, bucket, count := boardKey+":"+name, versionKey+":"+name, bucketKey("start "+name), countKey("start "+name)
		try(ofBoard, "ZADD", texts, "GT", "0", "")
		try(ofBoard, "ZRANGEBYSCORE", texts, "(0", "(0")
		try(ofBoard, "ZREMRANGEBYSCORE", texts, "-inf", "0")
		try(ofBoard, "EVAL", postText, "1", texts, "", "0", "0")
		try(ofBoard, "SET", version, "", "PX", "10000")
		try(ofBoard, "GET", version)
		try(ofBoard, "EVAL", drawText, "1", bucket, "0", "1", "1")
		try(ofBoard, "EVAL", countText, "1", count, "", "1", "1")
		for _, key := range []string{texts, version, bucket, count} {
			try(ofBoard, "DEL", key)
		}
	}
	if r.cfg.Replicas > 0 {
		try("", "WAIT", "0", "1")
	}
	return trials
}

// lacks says what is missing where the trial is refused so, "" for nothing: then the server refuses it for now.
func (t *trial) lacks(refusal string) string {
	what, keys := strings.CutPrefix(t.on, "on ")
	switch {
	case !isForbidden(refusal):
		return ""
	case keys && strings.HasPrefix(refusal, "NOPERM") && strings.Contains(refusal, " key"):
		return what
	case t.on == "":
		return t.name
	}
	return t.name + " " + t.on
}

// tryRights finds out whether the server lets us do all that we will need to.
func (r *Bus) tryRights(ctx context.Context) error {
	c, err := r.connect(ctx, false)
	if err != nil {
		return err
	}
	defer c.cut()
	stop := context.AfterFunc(ctx, c.cut)
	defer stop()
	_ = c.SetDeadline(time.Now().Add(r.cfg.Timeout))
	trials := r.trials()
	var out []byte
	for _, t := range trials {
		out = append(out, t.command...)
	}
	if _, err := c.Write(out); err != nil {
		return err
	}
	var missing []string
	var parser resp.Parser
	var got []byte
	for i := 0; i < len(trials); {
		v, size, err := parser.Parse(got)
		if err != nil {
			return err
		}
		if size == 0 {
			var buf [4096]byte
			n, err := c.Read(buf[:])
			if err != nil {
				return err
			}
			got = append(got, buf[:n]...)
			continue
		}
		if v.Kind == resp.Error {
			if what := trials[i].lacks(string(v.Text)); what != "" && !slices.Contains(missing, what) {
				missing = append(missing, what)
			}
		}
		got = got[size:]
		i++
	}
	if missing != nil {
		return refusal("NOPERM the user of Redis may not: " + strings.Join(missing, ", "))
	}
	return nil
}

// isForbidden reports whether an answer says that a right is missing, to a command or to one in a script: of the latter Redis 7.0 and
// those that came after it speak differently.
func isForbidden(said string) bool {
	return strings.HasPrefix(said, "NOPERM") || strings.Contains(said, "ACL failure in script") || strings.Contains(said, "The user executing the script can't")
}
