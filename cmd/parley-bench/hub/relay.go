package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Serve serves a Hub until ctx is done. With the URL of a Redis it shares its rooms with others.
func Serve(ctx context.Context, ln net.Listener, redisURL string) error {
	h := New()
	if redisURL != "" {
		options, err := redis.ParseURL(redisURL)
		if err != nil {
			return fmt.Errorf("the URL of the Redis: %w", err)
		}
		client := redis.NewClient(options)
		defer client.Close()
		h.relay = &relay{ctx, client, client.Subscribe(ctx)}
		defer h.relay.channels.Close()
		go h.relay.run(h)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A relay is what hubs share. A room is a channel; a message, the id of who says it, a space, and the text.
type relay struct {
	ctx      context.Context
	client   *redis.Client
	channels *redis.PubSub
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
