package main

import (
	"context"
	"net/http"
	"time"

	"parley/bus/id"
	"parley/cmd/parley-faults/judge"
	"parley/node/client"
	"parley/node/wire"
)

// goVoice speaks with the client for Go.
type goVoice struct {
	*client.Client
	room *client.Room
}

func enterGo(ctx context.Context, m *member) (voice, error) {
	c, err := client.Dial(ctx, "ws://parley", client.Options{
		Status:     func(s client.Status) { m.tellUp(s.Up, s.Err) },
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: m.route.dial}},
		MaxBackoff: 2 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	var since *id.ID // owned by the client's reader
	room, err := c.Join(ctx, m.room, client.JoinOptions{Limit: new(int), Handle: func(e client.Event) {
		switch e := e.(type) {
		case client.Joined:
			m.tell(judge.Event{Kind: judge.Joined, ID: e.Last, Since: since, Recovered: e.Recovered, Asked: m.route.connected()})
			m.tellMembers(userIDs(e.Members), "", "")
			if since == nil {
				since = &e.Last
			}
		case client.Message:
			since = &e.ID
			m.tell(judge.Event{Kind: judge.Message, ID: e.ID, Words: parseWords(e.Text)})
		case client.Gap:
			since = &e.Last
			m.tell(judge.Event{Kind: judge.Gap, ID: e.After})
		case client.Live:
			m.tell(judge.Event{Kind: judge.Live})
		case client.Presence:
			switch e.Event {
			case wire.EventJoin:
				m.tellMembers(nil, e.User.ID, "")
			case wire.EventLeave:
				m.tellMembers(nil, "", e.User.ID)
			case wire.EventSync:
				m.tellMembers(userIDs(e.Members), "", "")
			}
		}
	}})
	if err != nil {
		c.Close()
		return nil, err
	}
	return &goVoice{c, room}, nil
}

func userIDs(members []wire.Member) []string {
	var ids []string
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	return ids
}

func (v *goVoice) user() string { return v.User().ID }

func (v *goVoice) say(text string, done func(id.ID, error)) {
	v.room.SendAsync(client.Draft{Text: text}, done)
}

func (v *goVoice) read(bool) {} // it always does

func (v *goVoice) close() { v.Client.Close() }
