package nodetest

import (
	"context"

	"parley/bus"
)

// byName is a bus whose subscriptions publish by their room's name, over the bus: what a test has put in place of Publish or
// Signal there takes what nodes say.
type byName struct{ bus.Bus }

func (b byName) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	s, err := b.Bus.Subscribe(ctx, room, sink)
	if err != nil {
		return nil, err
	}
	return roomByName{s, b.Bus, room}, nil
}

type roomByName struct {
	bus.Subscription
	bus  bus.Bus
	room string
}

func (r roomByName) Publish(d bus.Draft, done func(bus.ID, error)) { r.bus.Publish(r.room, d, done) }

func (r roomByName) Signal(body []byte, done func(error)) { r.bus.Signal(r.room, body, done) }
