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
	var incarnations []string
	for _, tag := range r.tags() {
		listed, err := r.reads.SMembers(ctx, incarnationsKey(tag)).Result()
		if err != nil {
			return nil, unavailable(err)
		}
		incarnations = append(incarnations, listed...)
	}
	seen := make(map[string]struct{})
	for _, inc := range incarnations {
		var lease *redis.IntCmd
		var rooms *redis.StringSliceCmd
		if _, err := r.reads.Pipelined(ctx, func(p redis.Pipeliner) error {
			lease, rooms = p.Exists(ctx, leaseKey(inc)), p.SMembers(ctx, roomsOfKey(inc))
			return nil
		}); err != nil {
			return nil, unavailable(err)
		}
		if lease.Val() == 0 {
			continue
		}
		for _, name := range rooms.Val() {
			if _, again := seen[name]; !again {
				seen[name] = struct{}{}
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// Post implements bus.Board.
func (r *Bus) Post(ctx context.Context, text string, until time.Time) error {
	keys := []string{boardKey, versionKey}
	err := r.reads.Eval(ctx, postText, keys, text, until.UnixMilli(), r.now().UnixMilli(), rand.Text(), versionLife.Milliseconds()).Err()
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// Posted implements bus.Board.
func (r *Bus) Posted(ctx context.Context, known string) (texts []string, version string, err error) {
	if known != "" {
		version, err := r.reads.Get(ctx, versionKey).Result()
		if err != nil && err != redis.Nil {
			return nil, "", unavailable(err)
		}
		if version == "" {
			version = noVersion
		}
		if version == known {
			return nil, known, nil
		}
	}
	now := strconv.FormatInt(r.now().UnixMilli(), 10)
	var at *redis.StringCmd
	var all *redis.StringSliceCmd
	if _, err := r.reads.TxPipelined(ctx, func(p redis.Pipeliner) error {
		at = p.Get(ctx, versionKey)
		all = p.ZRangeByScore(ctx, boardKey, &redis.ZRangeBy{Min: "(" + now, Max: "+inf"})
		return nil
	}); err != nil && err != redis.Nil {
		return nil, "", unavailable(err)
	}
	if version = at.Val(); version == "" {
		version = noVersion
	}
	return all.Val(), version, nil
}

func bucketKey(bucket string) string { return "parley:bucket:{" + url.QueryEscape(bucket) + "}" }

// noVersion is that of a board on which nothing was posted of late.
const noVersion = "-"

// Draw implements bus.Board.
func (r *Bus) Draw(ctx context.Context, bucket string, n int, rate float64, burst int) (int, error) {
	drawn, err := r.reads.Eval(ctx, drawText, []string{bucketKey(bucket)}, n, rate, burst).Int()
	if err != nil {
		return 0, unavailable(err)
	}
	return drawn, nil
}

// Count implements bus.Board.
func (r *Bus) Count(ctx context.Context, of, holder string, n int, life time.Duration) (int, error) {
	total, err := r.reads.Eval(ctx, countText, []string{countKey(of)}, holder, n, life.Milliseconds()).Int()
	if err != nil {
		return 0, unavailable(err)
	}
	return total, nil
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
