package node

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"parley/bus"
	"parley/node/rights"
	"parley/node/wire"
)

// An App is an application that calls with an API key.
type App struct {
	Name   string
	Rights *rights.Rights
}

// Apps tells whose an API key is, in a time that says nothing of the keys. False is nobody's.
type Apps interface {
	App(key string) (App, bool)
}

// appOf is the application that a request's key is of, if it brings one in its header: nowhere else is a key taken for one.
func (s *Server) appOf(r *http.Request, key string) (identity, bool) {
	if s.cfg.Apps == nil || len(r.Header.Values("Authorization")) != 1 {
		return identity{}, false
	}
	a, ok := s.cfg.Apps.App(key)
	if !ok {
		return identity{}, false
	}
	u := User{ID: a.Name, Name: a.Name}
	return identity{user: u, grant: &Grant{User: u, Rights: a.Rights}, named: namedBefore, addr: r.RemoteAddr, app: &a}, true
}

// forApps is a handler that only applications may ask, with the right to manage everything if so.
func (s *Server) forApps(manage bool, do func(http.ResponseWriter, *http.Request, identity) *wire.Error) handler {
	return s.paced(func(w http.ResponseWriter, r *http.Request) *wire.Error {
		who, bad := s.identify(r, false)
		switch {
		case bad != nil:
			return bad
		case who.grant != nil && s.may(&caller{identity: who}, 0, "") != nil:
			return s.may(&caller{identity: who}, 0, "")
		case who.app == nil && len(r.Header.Values("Authorization")) == 0:
			return wire.Errorf(wire.Unauthorized, "an API key is needed: Authorization: Bearer KEY")
		case who.app == nil:
			return wire.Errorf(wire.Forbidden, "this is for applications, which have an API key")
		case manage && !who.app.Rights.Of("*").Has(rights.Manage):
			return wire.Errorf(wire.Forbidden, "the API key lacks the right to manage all rooms (*:manage)")
		}
		return do(w, r, who)
	})
}

// speakAs reads from a JSON object whom an application speaks for: "from", an object with id and name; else itself, as in a body that is
// no JSON (nil). The keys of its sends are its own, for each such user: they meet none of the user's.
func speakAs(c *caller, object []byte) *wire.Error {
	var body map[string]json.RawMessage // whose names are in one case of letters
	json.Unmarshal(object, &body)       // ParseSaid tells what is wrong with it
	var from *wire.Member
	if text := body["from"]; text != nil && json.Unmarshal(text, &from) != nil {
		return wire.Errorf(wire.BadRequest, "from has to be an object with an id and, if need be, a name and info")
	}
	if from != nil {
		if wire.CheckRoom(from.ID) != nil {
			return wire.Errorf(wire.BadRequest, "from needs an id of 1 to %d bytes, without control characters", wire.MaxRoom)
		}
		if bad := wire.CheckName(from.Name); bad != nil {
			return bad
		}
		info, err := wire.ParseInfo([]byte(from.Info))
		if err != nil {
			return wire.Errorf(wire.BadRequest, "from's info: %v", err)
		}
		c.user = User{ID: from.ID, Name: from.Name, Info: info}
	}
	c.keys = "\x00app " + c.app.Name + "\x00" + c.user.ID
	return nil
}

// readObject reads a body that is a JSON object; an empty one is {}.
func (s *Server) readObject(w http.ResponseWriter, r *http.Request, into any) ([]byte, *wire.Error) {
	said, bad := s.readBody(w, r)
	if bad != nil {
		return nil, bad
	}
	if len(said) == 0 {
		return said, nil
	}
	if err := json.Unmarshal(said, into); err != nil || bytes.TrimLeft(said, " \t\r\n")[0] != '{' { // null is none
		return nil, wire.Errorf(wire.BadRequest, "the body has to be a JSON object as /v1/openapi.json describes it")
	}
	return said, nil
}

func writeJSON(w http.ResponseWriter, status int, v any) *wire.Error {
	b, err := json.Marshal(v)
	if err != nil {
		return wire.Errorf(wire.Unavailable, "the answer cannot be written")
	}
	write(w, "application/json", status, b)
	return nil
}

// maxBroadcast is how many rooms one request may speak to.
const maxBroadcast = 100

// A Said is what became of a broadcast in one room: an id, or an error.
type Said struct {
	Room    string    `json:"room"`
	ID      string    `json:"id,omitempty"`
	Code    wire.Code `json:"code,omitempty"`
	Message string    `json:"message,omitempty"`
}

// broadcast says the same in many rooms. Each has an outcome of its own.
func (s *Server) broadcast(w http.ResponseWriter, r *http.Request, who identity) *wire.Error {
	var body struct{ Rooms []string }
	said, bad := s.readObject(w, r, &body)
	if bad != nil {
		return bad
	}
	if len(body.Rooms) == 0 || len(body.Rooms) > maxBroadcast {
		return wire.Errorf(wire.BadRequest, "rooms has to list 1 to %d rooms", maxBroadcast)
	}
	req := wire.Request{Op: "send", Key: r.Header.Get("Idempotency-Key")}
	if bad := firstError(wire.CheckKey(req.Key), req.ParseSaid(said, s.cfg.MaxText)); bad != nil {
		return bad
	}
	ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
	defer cancel()
	results := make([]Said, len(body.Rooms))
	var sends sync.WaitGroup
	turns := make(chan struct{}, 8)
	for i, room := range body.Rooms {
		sends.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			one, c := req, &caller{identity: who, id: s.newConnID()}
			one.Room = room
			results[i].Room = room
			bad := firstError(wire.CheckRoom(room), speakAs(c, said))
			if bad == nil {
				results[i].ID, bad = s.sayOnce(ctx, c, &one)
			}
			if bad != nil {
				results[i].Code, results[i].Message = bad.Code, bad.Message
			}
		})
	}
	sends.Wait()
	return writeJSON(w, http.StatusOK, map[string]any{"results": results})
}

// sayOnce says something in a room and gives the message's id.
func (s *Server) sayOnce(ctx context.Context, c *caller, req *wire.Request) (id string, bad *wire.Error) {
	if bad := s.may(c, rights.Send, req.Room); bad != nil {
		return "", bad
	}
	room, err := s.enter(ctx, req.Room) // so that the node watches over what it acknowledges
	if err != nil {
		return "", busError(err)
	}
	defer room.release()
	done := make(call, 1)
	c.visits, c.replies = room, done
	s.do(ctx, c, req)
	select {
	case out := <-done:
		if sent, ok := out.answer.(wire.Sent); ok {
			return sent.ID.String(), nil
		}
		return "", out.bad
	case <-ctx.Done():
		return "", busError(bus.ErrUnavailable)
	}
}

// getRooms lists rooms that somebody is in, of those whose members the application may read.
func (s *Server) getRooms(w http.ResponseWriter, r *http.Request, who identity) *wire.Error {
	limit, bad := queryLimit(r)
	if bad != nil {
		return bad
	}
	n := wire.MaxPage
	if limit != nil {
		n = *limit
	}
	ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
	defer cancel()
	names, err := s.cfg.Bus.Rooms(ctx)
	if err != nil {
		return busError(err)
	}
	after := r.URL.Query().Get("after")
	names = slices.DeleteFunc(names, func(name string) bool {
		return name <= after || wire.CheckRoom(name) != nil || !who.app.Rights.Of(name).Has(rights.Members)
	})
	slices.Sort(names)
	more := len(names) > n
	if more {
		names = names[:n]
	}
	return writeJSON(w, http.StatusOK, map[string]any{"rooms": append([]string{}, names...), "more": more})
}

// userOf reads the user that a path names.
func userOf(r *http.Request) (string, *wire.Error) {
	user := r.PathValue("user")
	if bad := wire.CheckRoom(user); bad != nil {
		return "", wire.Errorf(wire.BadRequest, "a user's id is 1 to %d bytes, without control characters", wire.MaxRoom)
	}
	return user, nil
}

// disconnect ends all connections of a user, over all nodes.
func (s *Server) disconnect(w http.ResponseWriter, r *http.Request, _ identity) *wire.Error {
	user, bad := userOf(r)
	if bad != nil {
		return bad
	}
	return s.post(w, r, notice{Disconnect: user, At: time.Now().UnixNano()}, time.Now().Add(noticeLife))
}

// revokeUser ends all sessions of a user: tokens that were issued before a time, by default now, and a guest's session.
func (s *Server) revokeUser(w http.ResponseWriter, r *http.Request, _ identity) *wire.Error {
	user, bad := userOf(r)
	if bad != nil {
		return bad
	}
	return s.revoke(w, r, user)
}

// revokeAll is for tokens of all users, or for one by its jti.
func (s *Server) revokeAll(w http.ResponseWriter, r *http.Request, _ identity) *wire.Error {
	return s.revoke(w, r, "")
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request, user string) *wire.Error {
	var body struct {
		Before *int64
		Token  *string
	}
	said, bad := s.readObject(w, r, &body)
	if bad != nil {
		return bad
	}
	var given map[string]any
	json.Unmarshal(said, &given) // which readObject could
	unknown := len(given)
	if body.Before != nil {
		unknown--
	}
	if body.Token != nil {
		unknown--
	}
	now := time.Now()
	n := notice{Revoke: true, User: user, Before: now.UnixMilli()}
	switch {
	case unknown > 0 || body.Token != nil && *body.Token == "": // what is not understood must not pass for everything
		return wire.Errorf(wire.BadRequest, "the body may have before, or token with the jti of one, and nothing else")
	case body.Token != nil && (user != "" || body.Before != nil):
		return wire.Errorf(wire.BadRequest, "a token is revoked by its jti alone: without a user, and without before")
	case body.Token != nil:
		n.Token, n.Before = *body.Token, 0
	case body.Before != nil && (*body.Before <= 0 || *body.Before > now.UnixMilli()):
		return wire.Errorf(wire.BadRequest, "before is in milliseconds since 1970, and not to come")
	case body.Before != nil:
		n.Before = *body.Before
	}
	return s.post(w, r, n, now.Add(s.cfg.TokenLife))
}

// post has every node know a notice.
func (s *Server) post(w http.ResponseWriter, r *http.Request, n notice, until time.Time) *wire.Error {
	ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
	defer cancel()
	text, _ := json.Marshal(n) // of strings and integers: it cannot fail
	if err := s.cfg.Bus.Post(ctx, noticePrefix+string(text), until); err != nil {
		return busError(err)
	}
	if err := s.board.read(ctx, s); err != nil {
		return busError(err)
	}
	return writeJSON(w, http.StatusAccepted, struct{}{})
}
