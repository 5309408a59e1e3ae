package bus

import (
	"context"
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
