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
	needs   string // what is missing where it is refused
	command []byte
}

// trials do on a room of their own all that links, and reads of logs, do. They leave nothing.
func (r *Bus) trials() []trial {
	k := keysOf(r.db, "start "+randomName())
	beat := "parley:beat:" + randomName()
	message := r.appendScript(nil, appendSHA, k, nil, 3)
	for _, arg := range []string{"", "0123456789abcdef", "01234567"} {
		message = resp.AppendArg(message, arg)
	}
	var trials []trial
	try := func(needs string, args ...string) {
		trials = append(trials, trial{needs, resp.Append(nil, args...)})
	}
	try("TIME", "TIME")
	try("XADD on keys parley:*", "XADD", k.log, "NOMKSTREAM", "*", "m", "")
	try("SET on keys parley:*", "SET", k.last, "0-0", "PX", "10000")
	try("HSET on keys parley:*", "HSET", k.records[0], "", "")
	try("HLEN on keys parley:*", "HLEN", k.records[0])
	try("HGET on keys parley:*", "HGET", k.records[0], "")
	try("PEXPIREAT on keys parley:*", "PEXPIREAT", k.records[0], fmt.Sprint(time.Now().Add(time.Minute).UnixMilli()))
	try("PEXPIRE on keys parley:*", "PEXPIRE", k.last, "10000")
	try("PUBLISH on channels parley:*", "PUBLISH", k.channel, "")
	trials = append(trials,
		trial{"EVALSHA on keys parley:*", message},
		trial{"EVALSHA on keys parley:*", r.appendMend(nil, k, bus.ID{}, bus.ID{}, []bus.ID{{}})})
	try("XTRIM on keys parley:*", "XTRIM", k.log, "MINID", "~", "0")
	try("XINFO on keys parley:*", "XINFO", "STREAM", k.log)
	try("GET on keys parley:*", "GET", k.last)
	try("XRANGE on keys parley:*", "XRANGE", k.log, "-", "+", "COUNT", "1")
	try("XREVRANGE on keys parley:*", "XREVRANGE", k.log, "+", "-", "COUNT", "1")
	try("DEL on keys parley:*", "DEL", k.log, k.last, k.records[0], k.records[1])
	try("PUBLISH on channels parley:*", "PUBLISH", beat, "")
	try("SUBSCRIBE to channels parley:*", "SUBSCRIBE", beat)
	try("SUBSCRIBE to channels parley:*", "SUBSCRIBE", k.channel)
	try("UNSUBSCRIBE", "UNSUBSCRIBE", k.channel)
	return trials
}

// tryRights finds out whether the server lets us do all that we will need to.
func (r *Bus) tryRights(ctx context.Context) error {
	c, err := r.dial(ctx, r.options.Network, r.options.Addr, true)
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
		if v.Kind == resp.Error && isForbidden(string(v.Text)) && !slices.Contains(missing, trials[i].needs) {
			missing = append(missing, trials[i].needs)
		}
		got = got[size:]
		i++
	}
	if missing != nil {
		return refusal("NOPERM the user of Redis may not: " + strings.Join(missing, ", "))
	}
	return nil
}

// isForbidden reports whether an answer says that a right is missing, to a command or to one in a script.
func isForbidden(said string) bool {
	return strings.HasPrefix(said, "NOPERM") || strings.Contains(said, "can't run this command") || strings.Contains(said, "can't access at least one of the keys")
}
