package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"parley/bus"
	"parley/node/rights"
	"parley/node/wire"
)

// An Authenticator tells what a token gives. An error's text is told to the client; it wraps ErrExpired if the token was good, and
// bus.ErrUnavailable if it cannot be told now.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (Grant, error)
}

// ErrExpired is what an Authenticator says of a token whose time is over.
var ErrExpired = errors.New("the token has expired")

// A User is who a caller speaks for.
type User struct {
	ID    string
	Name  string
	Guest bool
	Info  wire.Info // what others see of the user beside the name
}

// An identity is who makes a request. A guest is known again by its secret: what the wire calls a session.
type identity struct {
	user   User
	grant  *Grant // what it may do; nil for all that users do, for ever
	named  int64  // when the name was chosen, in ms since 1970: over all that the user has open, the latest counts
	secret string // empty for a token's user
	addr   string // where it calls from, as http.Request.RemoteAddr
	app    *App   // nil for people
}

// guestOf is the guest that a secret stands for.
func (s *Server) guestOf(r *http.Request, secret, name string) identity {
	u := guest(secret, name)
	return identity{user: u, grant: s.guestGrant(u), named: namedBefore, secret: secret, addr: r.RemoteAddr}
}

// guestGrant is what a guest may do.
func (s *Server) guestGrant(u User) *Grant {
	if s.cfg.Auth == nil && s.cfg.Apps == nil && s.cfg.GuestRights == nil {
		return nil
	}
	return &Grant{User: u, Rights: s.cfg.GuestRights}
}

// welcomesGuests reports whether one may come without a token.
func (s *Server) welcomesGuests() bool { return s.cfg.Auth == nil || s.cfg.Guests }

var errNoGuests = wire.Errorf(wire.Unauthorized, "a token is needed: there are no guests here")

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
		g, bad := s.authenticate(ctx, req.Token)
		if bad != nil {
			return nil, bad
		}
		who.user, who.grant, who.secret = g.User, g, ""
	case (req.Session != "" || who.user.Guest) && !s.welcomesGuests():
		return nil, errNoGuests
	case req.Session != "":
		if !validSecret(req.Session) {
			return nil, wire.Errorf(wire.BadRequest, "session is not a token that a welcome gave")
		}
		who.user, who.secret = guest(req.Session, req.Name), req.Session
		who.grant = s.guestGrant(who.user)
	case req.Name != "" && who.user.Guest:
		who.user = guest(who.secret, req.Name)
	}
	same := who.user.ID == c.user.ID // which no token's user and guest have in common
	switch now := time.Now().UnixMilli(); {
	case who.user.Guest && req.Name == "" && same:
		who.user.Name, who.named = c.user.Name, c.named
	case who.user.Guest && req.Name == "":
		who.named = namedBefore
	case req.Token == "" && req.Name == "": // it says nothing new
	case req.Token != "" && req.Named != 0 && !who.grant.Issued.IsZero(): // the client knows the name before; the later token counts
		who.named = who.grant.Issued.UnixMilli()
	case req.Named == 0 || req.Named > now:
		who.named = now
	default:
		who.named = req.Named
	}
	if len(c.rooms) > 0 && !same {
		return nil, wire.Errorf(wire.Forbidden, "the user cannot change after the first join: only the name can")
	}
	if s.board.revoked.Load().hits(who.grant) {
		return nil, errRevoked
	}
	if who.user.ID != c.user.ID {
		user, bad := s.connect(ctx, &who)
		if bad != nil {
			return nil, bad
		}
		s.disconnected(c.session.counted)
		c.session.counted = user
	}
	left := c.session.settle(who)
	c.session.welcome(req.Req)
	for _, room := range left {
		c.session.say("left", wire.Left{Room: room, Err: forbidden(rights.Join, room)})
	}
	return nil, nil
}

// identify returns who an HTTP request is from: a token's user, or the guest that a secret stands for, or a new guest. EventSource
// can set no headers, so its query is read too, which is never logged. Whoever brings what should be a token, and is none, is no guest.
func (s *Server) identify(r *http.Request, eventSource bool) (identity, *wire.Error) {
	query := r.URL.Query()
	name := query.Get("name")
	if bad := wire.CheckName(name); bad != nil {
		return identity{}, bad
	}
	token, present, bad := bearer(r, query, eventSource)
	if bad != nil {
		return identity{}, bad
	}
	if present {
		if who, is := s.appOf(r, token); is {
			return who, nil
		}
		return s.bearerOf(r, token)
	}
	if !s.welcomesGuests() {
		return identity{}, errNoGuests
	}
	secret := cmp.Or(r.Header.Get("Parley-Session"), query.Get("session"))
	if secret == "" {
		if r.Header.Get("Idempotency-Key") != "" {
			return identity{}, wire.Errorf(wire.BadRequest, "an Idempotency-Key counts for its user, so a guest has to bring a Parley-Session: "+
				"what the answer to a first message gave, or 128 random bits of one's own in base64url")
		}
		return s.guestOf(r, newSecret(), name), nil
	}
	if !validSecret(secret) {
		return identity{}, wire.Errorf(wire.BadRequest, "the session is no token that a welcome, or the header Parley-Session, gave, nor 128 bits in base64url")
	}
	return s.guestOf(r, secret, name), nil
}

// bearerOf is who a request's token stands for.
func (s *Server) bearerOf(r *http.Request, token string) (identity, *wire.Error) {
	ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
	defer cancel()
	g, bad := s.authenticate(ctx, token)
	if bad != nil {
		return identity{}, bad
	}
	return identity{user: g.User, grant: g, named: max(namedBefore, g.Issued.UnixMilli()), addr: r.RemoteAddr}, nil
}

// bearer reads the token that a request brings, in its header (RFC 6750 section 2.1, the scheme in any case of letters) or, where that is
// all that a client can set, its query.
func bearer(r *http.Request, query url.Values, takesQuery bool) (token string, present bool, bad *wire.Error) {
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
		if !takesQuery {
			return "", true, wire.Errorf(wire.Unauthorized, "the query is no place for a token: it has to be in the header Authorization")
		}
		return query.Get("token"), true, nil
	}
	return "", false, nil
}

// bearerProtocol begins the subprotocol that is a token: browsers can set no headers of a WebSocket.
const bearerProtocol = "bearer."

// identifySocket returns who a WebSocket is from. A token may be in the header Authorization, in the list of subprotocols, or, for plain
// text, in the query; without one it is a guest, or, until it says hello with a token, nobody. late reports that the client asked
// over the subprotocol: from what is refused there a page could learn nothing, so it is told over the open socket.
func (s *Server) identifySocket(r *http.Request, c codec, offers []string, name string) (who identity, late bool, bad *wire.Error) {
	query := r.URL.Query()
	if c != plain && query.Has("token") {
		return who, false, wire.Errorf(wire.Unauthorized, "the query is no place for a token: offer the subprotocol %sTOKEN, or say hello with it", bearerProtocol)
	}
	var offered []string
	for _, o := range offers {
		if token, is := strings.CutPrefix(o, bearerProtocol); is {
			offered = append(offered, token)
		}
	}
	token, present, bad := bearer(r, query, c == plain)
	switch {
	case bad != nil:
		return who, false, bad
	case len(offered) > 1 || present && len(offered) > 0:
		return who, false, wire.Errorf(wire.Unauthorized, "there is more than one token")
	case len(offered) == 1:
		if who, bad = s.bearerOf(r, offered[0]); bad != nil {
			who = s.unknown(r)
		}
		return who, true, bad
	case present:
		who, bad = s.bearerOf(r, token)
		return who, false, bad
	case s.welcomesGuests():
		return s.guestOf(r, newSecret(), name), false, nil
	case c == plain:
		return who, false, errNoGuests // it has no words to say hello with
	}
	return s.unknown(r), false, nil
}

// unknown is who may say hello with a token yet, or is told over an open socket that the one it brought is not good.
func (s *Server) unknown(r *http.Request) identity {
	return identity{user: User{Guest: true}, grant: s.nobody(), named: namedBefore, addr: r.RemoteAddr}
}

// authenticate asks who a token stands for.
func (s *Server) authenticate(ctx context.Context, token string) (*Grant, *wire.Error) {
	if s.cfg.Auth == nil {
		return nil, wire.Errorf(wire.Unauthorized, "this server takes no tokens: say hello without one, as a guest")
	}
	if !s.board.await(ctx) {
		return nil, errUnread
	}
	g, err := s.cfg.Auth.Authenticate(ctx, token)
	switch {
	case errors.Is(err, bus.ErrUnavailable):
		return nil, &wire.Error{Code: wire.Unavailable, Message: err.Error(), RetryAfter: unavailableRetry}
	case errors.Is(err, ErrExpired), err == nil && !g.Expires.IsZero() && !time.Now().Before(g.Expires):
		return nil, errExpired()
	case err != nil:
		return nil, wire.Errorf(wire.Unauthorized, "%v", err)
	case strings.HasPrefix(g.User.ID, guestPrefix):
		return nil, wire.Errorf(wire.Unauthorized, "the token's subject begins with %q, which guests' ids do", guestPrefix)
	}
	g.User.Guest = false
	if s.board.revoked.Load().hits(&g) {
		return nil, errRevoked
	}
	return &g, nil
}
