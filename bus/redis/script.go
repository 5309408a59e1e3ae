package redis

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"

	"parley/bus/redis/resp"
)

var (
	//go:embed log.lua
	logText string
	//go:embed append.lua
	appendText string
	//go:embed mend.lua
	mendText string
	//go:embed members.lua
	membersBody string
	//go:embed roster.lua
	rosterText string
	//go:embed read.lua
	readText string

	rosterSHA = sha(rosterText)
	readSHA   = sha(readText)

	plain   = newScripts("")
	sharded = newScripts("S") // on a Cluster
)

// scripts are those that publish, and the commands that do.
type scripts struct {
	appendText, mendText, membersText, stayingText string
	append, mend, members, staying                 string // as EVALSHA names them

	publish, subscribe, unsubscribe string
	message, subscribed, ended      string // what comes of them
}

func newScripts(prefix string) *scripts {
	publishing := strings.NewReplacer("'PUBLISH'", "'"+prefix+"PUBLISH'")
	small := strings.ToLower(prefix)
	s := &scripts{
		appendText: publishing.Replace(logText + appendText),
		mendText:   publishing.Replace(logText + mendText),
		// A full Redis runs what needs no memory: the same for leaving, and for staying.
		membersText: "#!lua\n" + publishing.Replace(membersBody),
		stayingText: "#!lua flags=allow-oom\n" + publishing.Replace(membersBody),

		publish: prefix + "PUBLISH", subscribe: prefix + "SUBSCRIBE", unsubscribe: prefix + "UNSUBSCRIBE",
		message: small + "message", subscribed: small + "subscribe", ended: small + "unsubscribe",
	}
	s.append, s.mend, s.members, s.staying = sha(s.appendText), sha(s.mendText), sha(s.membersText), sha(s.stayingText)
	return s
}

// texts are those of all scripts.
func (s *scripts) texts() []string {
	return []string{s.appendText, s.mendText, s.membersText, s.stayingText, rosterText, readText}
}

func sha(text string) string {
	sum := sha1.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

// loadPresence has a server know the scripts that are run over connections of go-redis's.
func (s *scripts) loadPresence(ctx context.Context, c redis.Cmdable) error {
	p := c.Pipeline()
	for _, text := range []string{s.membersText, s.stayingText, rosterText, readText} {
		p.ScriptLoad(ctx, text)
	}
	_, err := p.Exec(ctx)
	return err
}

// appendLoad appends the commands that have a server know the scripts that are run over links; each has an answer.
func (s *scripts) appendLoad(out []byte) []byte {
	out = resp.Append(out, "SCRIPT", "LOAD", s.appendText)
	return resp.Append(out, "SCRIPT", "LOAD", s.mendText)
}

const loads = 2 // commands of appendLoad

// exec sends the commands in one pipeline and waits for all answers, which are in the commands. It returns an error only if
// there are commands that got none. What another node of a Cluster has is asked there.
func (r *Bus) exec(ctx context.Context, c *redis.Client, cmds []redis.Cmder) error {
	err := execKnown(ctx, c, cmds, func() error { return r.scripts.loadPresence(ctx, c) })
	if err != nil || r.cluster == nil {
		return err
	}
	return r.cluster.follow(ctx, cmds)
}

// execKnown sends the commands. Those answered NOSCRIPT are sent again, in order, after the script was loaded: connections load it
// when they are made, so this happens only after SCRIPT FLUSH.
func execKnown(ctx context.Context, c redis.Cmdable, cmds []redis.Cmder, load func() error) error {
	if err := execOnce(ctx, c, cmds); err != nil {
		return err
	}
	var again []redis.Cmder
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
			again = append(again, cmd)
		}
	}
	if again == nil {
		return nil
	}
	if err := load(); err != nil {
		return err
	}
	return execOnce(ctx, c, again)
}

func execOnce(ctx context.Context, c redis.Cmdable, cmds []redis.Cmder) error {
	p := c.Pipeline()
	for _, cmd := range cmds {
		_ = p.Process(ctx, cmd)
	}
	_, err := p.Exec(ctx)
	if err == nil {
		return nil
	}
	answered := false
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !isReply(err) {
			return err
		} else if err != nil {
			answered = true
		}
	}
	if !answered { // The server refused the connection, with a reply such as LOADING that no command holds.
		return err
	}
	return nil
}

// isReply reports whether the error is an answer of the server, be it "no such key".
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}
