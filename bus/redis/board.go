package redis

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"sync"
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

// posts are the texts that a handle knows to be posted, until when, in ms since 1970 by the server's clock. A server may lose some: whoever
// knows them then posts them again.
type posts struct {
	mu    sync.Mutex       // a leaf
	until map[string]int64 // guarded by mu
}

// add takes texts in, and forgets those that are over. It gives those that are none of these.
func (p *posts) add(texts map[string]int64, now int64) (others map[string]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = make(map[string]int64)
	}
	for text, until := range texts {
		p.until[text] = max(p.until[text], until)
	}
	maps.DeleteFunc(p.until, func(_ string, until int64) bool { return until < now })
	others = maps.Clone(p.until)
	maps.DeleteFunc(others, func(text string, _ int64) bool { _, is := texts[text]; return is })
	return others
}

// Post implements bus.Board.
func (r *Bus) Post(ctx context.Context, text string, until time.Time) error {
	return r.post(ctx, map[string]int64{text: until.UnixMilli()})
}

// postMost is how many texts one command posts: a few milliseconds of Redis's time.
const postMost = 1000

// post posts texts, each until its end. The version comes after them, and is read before them: whoever has read the version has the texts,
// and a slot of a Cluster may have one of them here and one there.
func (r *Bus) post(ctx context.Context, texts map[string]int64) error {
	now := r.now().UnixMilli()
	args := make([]any, 0, 2*len(texts))
	for text, until := range texts {
		args = append(args, text, until)
	}
	q := r.query(ctx, r.reads)
	for some := range slices.Chunk(args, 2*postMost) {
		q.do(append([]any{"eval", postText, 1, boardKey, now}, some...)...)
	}
	if err := q.send(); err != nil {
		return err
	}
	q = r.query(ctx, r.reads)
	q.do("set", versionKey, rand.Text(), "px", versionLife.Milliseconds())
	if err := q.send(); err != nil {
		return err
	}
	r.posts.add(texts, now)
	return nil
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
	now := r.now().UnixMilli()
	q = r.query(ctx, r.reads)
	all := q.do("zrangebyscore", boardKey, now, "+inf", "withscores")
	if err := q.send(); err != nil {
		return nil, "", err
	}
	read := make(map[string]int64)
	for of := range slices.Chunk(textsOf(all), 2) { // a text and its end
		until, err := strconv.ParseFloat(of[len(of)-1], 64)
		if err != nil {
			return nil, "", unavailable(err)
		}
		texts, read[of[0]] = append(texts, of[0]), int64(until)
	}
	lost := r.posts.add(read, now)
	if len(lost) == 0 {
		return texts, version, nil
	}
	if err := r.post(ctx, lost); err != nil {
		r.complain("post again what is lost", err)
		version = rand.Text() // of no board: it is tried again with the next reading
	}
	return slices.AppendSeq(texts, maps.Keys(lost)), version, nil
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
