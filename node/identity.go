package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"parley/node/wire"
)

// An Authenticator tells who a token stands for. An error's text is told to the client.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (User, error)
}

// A User is who a caller speaks for.
type User struct {
	ID    string
	Name  string
	Guest bool
}

// An identity is who makes a request. A guest is known again by its secret: what the wire calls a session.
type identity struct {
	user   User
	named  int64  // when the name was chosen, in ms since 1970: over all that the user has open, the latest counts
	secret string // empty for a token's user
	addr   string // where it calls from, as http.Request.RemoteAddr
}

// newGuest is a guest nobody has seen before.
func newGuest(r *http.Request, name string) identity {
	secret := newSecret()
	return identity{guest(secret, name), namedBefore, secret, r.RemoteAddr}
}

// namedBefore is when a name was chosen that came with a handshake, or that nobody chose: before any that was.
const namedBefore = 1

// guestPrefix begins the id of a guest, and of nobody else.
const guestPrefix = "guest-"

// newSecret makes the secret by which a guest is known: 128 random bits.
func newSecret() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// validSecret reports whether a secret has the form of newSecret: a guest must not choose one that is easy to guess.
func validSecret(secret string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	return err == nil && len(b) == 16
}

var guestEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// guest is who a secret stands for, on every node, with nothing stored: 80 bits of its hash are the id.
func guest(secret, name string) User {
	sum := sha256.Sum256([]byte("parley guest\x00" + secret))
	id := guestEncoding.EncodeToString(sum[:10])
	if name == "" {
		name = "Guest " + strings.ToUpper(id[:4])
	}
	return User{ID: guestPrefix + id, Name: name, Guest: true}
}

// hello says who the caller is: a token's user, or the guest that a secret stands for. In a room it may change the name, but not
// who it is. Who merely comes back says when the name was chosen, or an old tab would undo what a newer one has chosen.
func (s *Server) hello(ctx context.Context, c *caller, req *wire.Request) (appender, *wire.Error) {
	who := c.identity
	switch {
	case req.Token != "":
		user, bad := s.authenticate(ctx, req.Token)
		if bad != nil {
			return nil, bad
		}
		who.user, who.secret = user, ""
	case req.Session != "":
		if !validSecret(req.Session) {
			return nil, wire.Errorf(wire.BadRequest, "session is not a token that a welcome gave")
		}
		who.user, who.secret = guest(req.Session, req.Name), req.Session
	case req.Name != "" && who.user.Guest:
		who.user = guest(who.secret, req.Name)
	}
	same := who.user.ID == c.user.ID && who.user.Guest == c.user.Guest
	switch now := time.Now().UnixMilli(); {
	case who.user.Guest && req.Name == "" && same:
		who.user.Name, who.named = c.user.Name, c.named
	case who.user.Guest && req.Name == "":
		who.named = namedBefore
	case req.Token == "" && req.Name == "": // it says nothing new
	case req.Named == 0 || req.Named > now:
		who.named = now
	default:
		who.named = req.Named
	}
	if len(c.rooms) > 0 && !same {
		return nil, wire.Errorf(wire.Forbidden, "the user cannot change after the first join: only the name can")
	}
	c.identity = who
	for _, m := range c.rooms {
		m.rename()
	}
	c.session.welcome(req.Req)
	return nil, nil
}

// identify returns who an HTTP request is from: a token's user, or the guest that a secret stands for, or a new guest. EventSource
// can set no headers, so identify reads the query too, which is never logged. Whoever brings what should be a token, and is none,
// is no guest.
func (s *Server) identify(r *http.Request) (identity, *wire.Error) {
	query := r.URL.Query()
	name := query.Get("name")
	if bad := wire.CheckName(name); bad != nil {
		return identity{}, bad
	}
	token, present, bad := bearer(r, query)
	if bad != nil {
		return identity{}, bad
	}
	if present {
		ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
		defer cancel()
		user, bad := s.authenticate(ctx, token)
		return identity{user: user, named: namedBefore, addr: r.RemoteAddr}, bad
	}
	secret := cmp.Or(r.Header.Get("Parley-Session"), query.Get("session"))
	if secret == "" {
		if r.Header.Get("Idempotency-Key") != "" {
			return identity{}, wire.Errorf(wire.BadRequest, "an Idempotency-Key counts for its user, so a guest has to bring a Parley-Session: "+
				"what the answer to a first message gave, or 128 random bits of one's own in base64url")
		}
		return newGuest(r, name), nil
	}
	if !validSecret(secret) {
		return identity{}, wire.Errorf(wire.BadRequest, "the session is no token that a welcome, or the header Parley-Session, gave, nor 128 bits in base64url")
	}
	return identity{guest(secret, name), namedBefore, secret, r.RemoteAddr}, nil
}

// bearer reads the token that a request brings, in its header (RFC 6750 section 2.1, the scheme in any case of letters) or its query.
func bearer(r *http.Request, query url.Values) (token string, present bool, bad *wire.Error) {
	switch lines := r.Header.Values("Authorization"); {
	case len(lines) == 1:
		scheme, rest, _ := strings.Cut(lines[0], " ")
		if token = strings.Trim(rest, " "); !strings.EqualFold(scheme, "Bearer") || token == "" || strings.ContainsAny(token, " \t,") {
			return "", true, wire.Errorf(wire.Unauthorized, "the header Authorization has to be: Bearer TOKEN")
		}
		return token, true, nil
	case len(lines) > 1:
		return "", true, wire.Errorf(wire.Unauthorized, "there are %d headers Authorization", len(lines))
	case query.Has("token"):
		return query.Get("token"), true, nil
	}
	return "", false, nil
}

// authenticate asks who a token stands for.
func (s *Server) authenticate(ctx context.Context, token string) (User, *wire.Error) {
	if s.cfg.Auth == nil {
		return User{}, wire.Errorf(wire.Unauthorized, "this server takes no tokens: say hello without one, as a guest")
	}
	u, err := s.cfg.Auth.Authenticate(ctx, token)
	if err != nil {
		return User{}, wire.Errorf(wire.Unauthorized, "%v", err)
	}
	if strings.HasPrefix(u.ID, guestPrefix) {
		return User{}, wire.Errorf(wire.Unauthorized, "the token's subject begins with %q, which guests' ids do", guestPrefix)
	}
	return u, nil
}
