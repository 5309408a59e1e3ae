package bus

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// ClockBack puts a message with an id of the future into a room, as it looks after the server's clock was set back.
func ClockBack(t testing.TB, url, room string) {
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(o)
	defer c.Close()
	ctx, k := context.Background(), keysOf(o.DB, room)
	prev, err := c.Get(ctx, k.last).Result()
	if err == redis.Nil {
		prev, err = "0-0", nil
	}
	id := fmt.Sprintf("%d-7", time.Now().Add(time.Hour).UnixMilli())
	if err == nil {
		err = c.XAdd(ctx, &redis.XAddArgs{Stream: k.log, ID: id, Values: []string{"m", prev + " future"}}).Err()
	}
	if err == nil {
		err = c.Set(ctx, k.last, id, time.Hour).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Client is the client that reads.
func (r *Redis) Client() *redis.Client { return r.reads }

// Append publishes bodies under random keys in one pipeline, as a publisher does with what has piled up.
func (r *Redis) Append(room, body string, n int) error {
	cmds := make([]redis.Cmder, n)
	k := r.keys(room)
	for i := range cmds {
		o := &op{room: room, keys: k, kind: "m", body: body, key: rand.Text()[:16], sum: "12345678"}
		cmds[i] = r.command(o)
	}
	if err := exec(context.Background(), r.writes, cmds); err != nil {
		return err
	}
	for _, cmd := range cmds {
		if cmd.Err() != nil {
			return cmd.Err()
		}
	}
	return nil
}
