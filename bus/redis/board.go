package redis

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// The keys of the board. No room's are like them: what is escaped has no "%b".
const (
	boardKey   = "parley:{%board}:texts"   // a sorted set: each text with its end, in ms
	versionKey = "parley:{%board}:version" // changes with every text
)

const versionLife = 24 * time.Hour

var (
	//go:embed post.lua
	postText string
	//go:embed draw.lua
	drawText string
	//go:embed count.lua
	countText string
)

// Rooms implements bus.Board.
func (r *Bus) Rooms(ctx context.Context) (names []string, err error) {
	q := r.query(ctx, r.reads)
	for _, tag := range r.tags() {
		q.do("smembers", incarnationsKey(tag))
	}
	if err := q.send(); err != nil {
		return nil, err
	}
	var incarnations []string
	for _, listed := range q.cmds {
		incarnations = append(incarnations, textsOf(listed)...)
	}
	if len(incarnations) == 0 {
		return nil, nil
	}
	q = r.query(ctx, r.reads)
	for _, inc := range incarnations {
		q.do("exists", leaseKey(inc))
		q.do("smembers", roomsOfKey(inc))
	}
	if err := q.send(); err != nil {
		return nil, err
	}
	seen := make(map[string]struct{})
	for of := range slices.Chunk(q.cmds, 2) {
		if lives, _ := of[0].(*redis.Cmd).Bool(); !lives {
			continue
		}
		for _, name := range textsOf(of[1]) {
			if _, again := seen[name]; !again {
				seen[name] = struct{}{}
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// textsOf are those that an answer lists.
func textsOf(cmd redis.Cmder) []string {
	texts, _ := cmd.(*redis.Cmd).StringSlice()
	return texts
}

// Post implements bus.Board. The version comes after the text, and is read before it: whoever has read the version has the text, and a
// slot of a Cluster may have one of them here and one there.
func (r *Bus) Post(ctx context.Context, text string, until time.Time) error {
	q := r.query(ctx, r.reads)
	q.do("eval", postText, 1, boardKey, text, until.UnixMilli(), r.now().UnixMilli())
	if err := q.send(); err != nil {
		return err
	}
	q = r.query(ctx, r.reads)
	q.do("set", versionKey, rand.Text(), "px", versionLife.Milliseconds())
	return q.send()
}

// Posted implements bus.Board.
func (r *Bus) Posted(ctx context.Context, known string) (texts []string, version string, err error) {
	q := r.query(ctx, r.reads)
	at := q.get(versionKey)
	if err := q.send(); err != nil {
		return nil, "", err
	}
	if version, _ = at.Val().(string); version == "" {
		version = noVersion
	}
	if version == known {
		return nil, known, nil
	}
	q = r.query(ctx, r.reads)
	all := q.do("zrangebyscore", boardKey, r.now().UnixMilli(), "+inf")
	if err := q.send(); err != nil {
		return nil, "", err
	}
	return textsOf(all), version, nil
}

func bucketKey(bucket string) string { return "parley:bucket:{" + url.QueryEscape(bucket) + "}" }

// noVersion is that of a board on which nothing was posted of late.
const noVersion = "-"

// Draw implements bus.Board.
func (r *Bus) Draw(ctx context.Context, bucket string, n int, rate float64, burst int) (int, error) {
	return r.evalInt(ctx, drawText, bucketKey(bucket), n, rate, burst)
}

// Count implements bus.Board.
func (r *Bus) Count(ctx context.Context, of, holder string, n int, life time.Duration) (int, error) {
	return r.evalInt(ctx, countText, countKey(of), holder, n, life.Milliseconds())
}

// evalInt runs a script of one key that answers a number.
func (r *Bus) evalInt(ctx context.Context, script, key string, args ...any) (int, error) {
	q := r.query(ctx, r.reads)
	answer := q.do(append([]any{"eval", script, 1, key}, args...)...)
	if err := q.send(); err != nil {
		return 0, err
	}
	n, err := answer.Int()
	if err != nil {
		return 0, unavailable(err)
	}
	return n, nil
}

func countKey(of string) string { return "parley:count:{" + url.QueryEscape(of) + "}" }

// Rooms implements bus.Board. A part that is away makes it fail.
func (c *Cluster) Rooms(ctx context.Context) (names []string, err error) {
	c.mu.RLock()
	shards := slices.Collect(maps.Values(c.shards))
	c.mu.RUnlock()
	for _, s := range shards {
		some, err := s.Rooms(ctx)
		if err != nil {
			return nil, err
		}
		names = append(names, some...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil // while a room moves, two parts have it
}

// Post implements bus.Board.
func (c *Cluster) Post(ctx context.Context, text string, until time.Time) error {
	s, err := c.partOf(boardKey)
	if err != nil {
		return err
	}
	return s.Post(ctx, text, until)
}

// Posted implements bus.Board.
func (c *Cluster) Posted(ctx context.Context, known string) (texts []string, version string, err error) {
	s, err := c.partOf(boardKey)
	if err != nil {
		return nil, "", err
	}
	return s.Posted(ctx, known)
}

// Draw implements bus.Board.
func (c *Cluster) Draw(ctx context.Context, bucket string, n int, rate float64, burst int) (int, error) {
	s, err := c.partOf(bucketKey(bucket))
	if err != nil {
		return 0, err
	}
	return s.Draw(ctx, bucket, n, rate, burst)
}

// Count implements bus.Board.
func (c *Cluster) Count(ctx context.Context, of, holder string, n int, life time.Duration) (int, error) {
	s, err := c.partOf(countKey(of))
	if err != nil {
		return 0, err
	}
	return s.Count(ctx, of, holder, n, life)
}

// partOf is the part that has a key.
func (c *Cluster) partOf(key string) (*Bus, error) {
	if s := c.ownerOf(slotOf(key)); s != nil {
		return s, nil
	}
	return nil, unavailable(errors.New("no primary has the slot"))
}
