// Package api calls Parley as an application does, over HTTP and with an API key: it speaks for users, in many rooms at once, and
// manages users. What is asked and answered stands in a node's /v1/openapi.json.
package api

import (
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"parley/bus/id"
	"parley/node/wire"
)

// ID is a message's id.
type ID = id.ID

// A Client calls one address, such as that of a load balancer. All methods may be called concurrently. What may yet succeed they try
// again until ctx is done, with the same idempotency key: nothing is said twice. What is refused is a *wire.Error.
type Client struct {
	base string
	key  string
	http *http.Client
}

// Options are optional.
type Options struct {
	HTTPClient *http.Client // default one that gives up on an attempt after 10 s; redirects that make a GET of a POST it does not follow
}

// New makes a Client: url is http://host:8765 or https://host.
func New(to, key string, o Options) (*Client, error) {
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the address has to be such as https://chat.example.com")
	}
	if key == "" || strings.ContainsAny(key, " \t\r\n") {
		return nil, errors.New("there is no API key")
	}
	client := *cmp.Or(o.HTTPClient, &http.Client{Timeout: 10 * time.Second})
	client.CheckRedirect = sameMethod(client.CheckRedirect)
	return &Client{strings.TrimSuffix(u.String(), "/"), key, &client}, nil
}

// sameMethod follows a redirect only where it asks the same (RFC 9110, section 15.4: 301, 302 and 303 make a GET of a POST, whose answer
// would pass for what was asked).
func sameMethod(next func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		switch {
		case req.Method != via[0].Method:
			return http.ErrUseLastResponse
		case next != nil:
			return next(req, via)
		case len(via) >= 10:
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
}

// A Draft is something to say.
type Draft struct {
	From *wire.Member    // for whom; nil for the application itself
	Text string          //
	Data json.RawMessage // any JSON; nil for none
	Key  string          // the idempotency key; default a random one
}

type draftBody struct {
	Rooms []string        `json:"rooms,omitempty"`
	From  *wire.Member    `json:"from,omitempty"`
	Text  string          `json:"text,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// Publish says something in a room.
func (c *Client) Publish(ctx context.Context, room string, d Draft) (ID, error) {
	var said struct{ ID ID }
	err := c.do(ctx, "POST", "/v1/rooms/"+segment(room)+"/messages", draftBody{From: d.From, Text: d.Text, Data: d.Data}, cmp.Or(d.Key, crand.Text()), &said)
	if err == nil && said.ID == (ID{}) {
		err = errForeign
	}
	return said.ID, wrap(err, "publish to "+room)
}

// An Outcome is what became of a broadcast in one room: an id, or an error.
type Outcome struct {
	Room string
	ID   ID
	Err  *wire.Error
}

// Broadcast says the same in up to 100 rooms, and gives an outcome for each, in their order.
func (c *Client) Broadcast(ctx context.Context, rooms []string, d Draft) ([]Outcome, error) {
	var said struct {
		Results []struct {
			ID, Message string
			Code        wire.Code
		}
	}
	err := c.do(ctx, "POST", "/v1/broadcast", draftBody{rooms, d.From, d.Text, d.Data}, cmp.Or(d.Key, crand.Text()), &said)
	if err == nil && len(said.Results) != len(rooms) {
		err = errForeign
	}
	if err != nil {
		return nil, wrap(err, "broadcast")
	}
	list := make([]Outcome, len(said.Results))
	for i, r := range said.Results {
		list[i].Room = rooms[i]
		if r.Code != "" {
			list[i].Err = harmless(r.Code, r.Message)
		} else if list[i].ID, err = id.Parse(r.ID); err != nil || list[i].ID == (ID{}) {
			return nil, wrap(errForeign, "broadcast")
		}
	}
	return list, nil
}

// History reads at most limit messages before an id, oldest first, and whether there are more. Before nil means the newest.
func (c *Client) History(ctx context.Context, room string, before *ID, limit int) (messages []wire.Entry, more bool, err error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if before != nil {
		query.Set("before", before.String())
	}
	var page struct {
		Messages []wire.Entry
		More     bool
	}
	err = c.do(ctx, "GET", "/v1/rooms/"+segment(room)+"/messages?"+query.Encode(), nil, "", &page)
	return page.Messages, page.More, wrap(err, "read "+room)
}

// Members lists who is in a room, at most 200, and counts all.
func (c *Client) Members(ctx context.Context, room string) (members []wire.Member, count int, err error) {
	var list struct {
		Members []wire.Member
		Count   int
	}
	err = c.do(ctx, "GET", "/v1/rooms/"+segment(room)+"/members", nil, "", &list)
	return list.Members, list.Count, wrap(err, "list who is in "+room)
}

// Rooms lists all rooms that somebody is in, sorted.
func (c *Client) Rooms(ctx context.Context) (rooms []string, err error) {
	for {
		path := "/v1/rooms"
		if len(rooms) > 0 {
			path += "?after=" + url.QueryEscape(rooms[len(rooms)-1])
		}
		var page struct {
			Rooms []string
			More  bool
		}
		if err := c.do(ctx, "GET", path, nil, "", &page); err != nil {
			return nil, wrap(err, "list the rooms")
		}
		if rooms = append(rooms, page.Rooms...); !page.More || len(page.Rooms) == 0 {
			return rooms, nil
		}
	}
}

// Disconnect ends all connections of a user, on every node within a second. They may come back.
func (c *Client) Disconnect(ctx context.Context, user string) error {
	return wrap(c.do(ctx, "POST", "/v1/users/"+segment(user)+"/disconnect", nil, "", nil), "disconnect "+user)
}

// Revoke ends all sessions of a user, on every node within a second, and has tokens refused that were issued before a time: the zero
// Time is now. Without a user it is about everyone.
func (c *Client) Revoke(ctx context.Context, user string, before time.Time) error {
	body := map[string]int64{}
	if !before.IsZero() {
		body["before"] = before.UnixMilli()
	}
	path := "/v1/revoke"
	if user != "" {
		path = "/v1/users/" + segment(user) + "/revoke"
	}
	return wrap(c.do(ctx, "POST", path, body, "", nil), "revoke")
}

// RevokeToken has one token refused, by its jti, and ends its sessions.
func (c *Client) RevokeToken(ctx context.Context, jti string) error {
	return wrap(c.do(ctx, "POST", "/v1/revoke", map[string]string{"token": jti}, "", nil), "revoke a token")
}

// segment is a name in a path. One of dots would be a step to elsewhere (RFC 3986, section 5.2.4): revoking ".." would revoke everybody.
func segment(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

// errForeign is of an answer that no node gives.
var errForeign = errors.New("the answer is not that of a node: is the address right?")

// harmless makes an error of what was answered, which may be shown on a terminal.
func harmless(code wire.Code, message string) *wire.Error {
	return &wire.Error{Code: wire.Code(wire.Harmless(string(code))), Message: wire.Harmless(message)}
}

func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// do asks, again and again where that may help. Without an into the answer has to be that it was done.
func (c *Client) do(ctx context.Context, method, path string, body any, key string, into any) error {
	var said []byte
	if body != nil {
		var err error
		if said, err = json.Marshal(body); err != nil {
			return err
		}
	}
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 8*time.Second) {
		wait, err := c.once(ctx, method, path, said, key, into)
		if err == nil || wait < 0 {
			return err
		}
		t := time.NewTimer(wait + pause/2 + rand.N(pause/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// maxAnswer bounds what is read of an answer, far above what a node says.
const maxAnswer = 16 << 20

// once asks once. After a wait that is not negative it may be asked again.
func (c *Client) once(ctx context.Context, method, path string, said []byte, key string, into any) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(said))
	if err != nil {
		return -1, err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	if said != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil || errors.As(err, new(*tls.CertificateVerificationError)) {
			return -1, err
		}
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, err
	}
	if resp.StatusCode < 300 {
		if into == nil && resp.StatusCode == http.StatusAccepted {
			into = new(struct{})
		}
		if json.Unmarshal(answer, into) != nil {
			return -1, errForeign
		}
		return -1, nil
	}
	var problem struct {
		Code   wire.Code
		Detail string
	}
	if json.Unmarshal(answer, &problem) != nil || problem.Code == "" {
		problem.Code, problem.Detail = wire.Unavailable, resp.Status // of a proxy between
		if to := resp.Header.Get("Location"); to != "" {
			problem.Detail += ": it moved to " + to
		}
		switch status := resp.StatusCode; {
		case status == http.StatusTooManyRequests:
			problem.Code = wire.RateLimited
		case status < 500 && status != http.StatusRequestTimeout:
			problem.Code = wire.BadRequest
		}
	}
	bad := harmless(problem.Code, problem.Detail)
	seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
	bad.RetryAfter = time.Duration(seconds) * time.Second
	if bad.Code == wire.Unavailable || bad.Code == wire.RateLimited {
		return bad.RetryAfter, bad
	}
	return -1, bad
}
