package hub

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A relay is what hubs share. A room is a channel; a message, the id of who says it, a space, and the text.
type relay struct {
	ctx      context.Context
	client   *redis.Client
	channels *redis.PubSub
}

func newRelay(ctx context.Context, url string) (*relay, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("the URL of the Redis: %w", err)
	}
	client := redis.NewClient(options)
	return &relay{ctx, client, client.Subscribe(ctx)}, nil
}

func (r *relay) close() {
	r.channels.Close()
	r.client.Close()
}

// run hands over what is said anywhere, until the channels are closed.
func (r *relay) run(h *Hub) {
	for m := range r.channels.Channel() {
		by, text, _ := strings.Cut(m.Payload, " ")
		h.room(m.Channel).said <- said{by, []byte(text)}
	}
}

func (r *relay) subscribe(room string) { r.channels.Subscribe(r.ctx, room) } // again by itself, after a failure

func (r *relay) publish(room, by string, text []byte) {
	r.client.Publish(r.ctx, room, append([]byte(by+" "), text...)) // what fails is lost
}
