package node

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// defaultPorts are those that an origin leaves out (RFC 6454 section 6.2).
var defaultPorts = map[string]string{"http": "80", "https": "443"}

// An origin's parts as patterns have them.
var (
	schemePattern = regexp.MustCompile(`^[a-z*][a-z0-9+.*-]*$`)
	hostPattern   = regexp.MustCompile(`^[a-z0-9._*-]+$`)
)

// NormalizeOrigin writes a pattern of Config.Origins as browsers write an origin: small letters, punycode, no default port, no slash
// at the end, IPv6 in brackets. It is an error if no origin can ever match.
func NormalizeOrigin(pattern string) (string, error) {
	p := strings.ToLower(strings.TrimSpace(pattern))
	if p == "null" || p == "*" {
		return p, nil
	}
	scheme, rest, hasScheme := strings.Cut(p, "://")
	if !hasScheme {
		scheme, rest = "", p
	}
	rest = strings.TrimSuffix(rest, "/")
	switch {
	case hasScheme && scheme == "file":
		return "", errors.New(`pages from files have the origin "null"`)
	case hasScheme && (scheme == "ws" || scheme == "wss"):
		return "", fmt.Errorf("an origin is that of a page: http%s://%s", strings.TrimPrefix(scheme, "ws"), rest)
	case hasScheme && !schemePattern.MatchString(scheme):
		return "", fmt.Errorf("%q is no scheme", scheme)
	case strings.ContainsAny(rest, "/?#@\\"):
		return "", errors.New("an origin has a scheme, a host and a port, and nothing else")
	}
	host, port, err := splitPattern(rest)
	if err != nil {
		return "", err
	}
	if port != "" && port != defaultPorts[scheme] {
		host += ":" + port
	}
	if hasScheme {
		return scheme + "://" + host, nil
	}
	return host, nil
}

// splitPattern parts host and port, and normalises the host. An IPv6 address has brackets.
func splitPattern(s string) (host, port string, err error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() {
		return bracketed(a), "", nil
	}
	if strings.HasPrefix(s, "[") {
		inside, rest, ok := strings.Cut(s[1:], "]")
		a, bad := netip.ParseAddr(inside)
		if !ok || bad != nil || !a.Is6() || a.Zone() != "" {
			return "", "", errors.New("what is in brackets is no IPv6 address")
		}
		host, port = bracketed(a), strings.TrimPrefix(rest, ":")
		if rest != "" && (rest[0] != ':' || port == "") {
			return "", "", errors.New("what follows the brackets is no port")
		}
	} else {
		var hasPort bool
		host, port, hasPort = strings.Cut(s, ":")
		if hasPort && port == "" {
			return "", "", errors.New("the port is missing")
		}
		if host, err = idna.New(idna.MapForLookup(), idna.StrictDomainName(false)).ToASCII(host); err != nil || !hostPattern.MatchString(host) {
			return "", "", fmt.Errorf("%q is no host", s)
		}
	}
	if n, err := strconv.Atoi(port); port != "" && !strings.ContainsAny(port, "*?") && (err != nil || n < 1 || n > 65535) {
		return "", "", fmt.Errorf("%q is no port", port)
	}
	return host, port, nil
}

func bracketed(a netip.Addr) string { return "[" + a.String() + "]" }

// An origin is that of a page, in the two forms that patterns have of a host: with its port, and without if it is the default.
type origin struct {
	scheme, host, withPort string
}

func parseOrigin(s string) origin {
	u, err := url.Parse(strings.ToLower(s))
	if err != nil || u.Host == "" {
		return origin{host: strings.ToLower(s), withPort: strings.ToLower(s)} // null
	}
	o := origin{scheme: u.Scheme}
	o.host, o.withPort = hostForms(u.Scheme, u.Host)
	return o
}

// hostForms gives a host without a default port, and with its port in any case.
func hostForms(scheme, hostport string) (host, withPort string) {
	u := url.URL{Host: strings.ToLower(hostport)}
	host = u.Hostname()
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = bracketed(a)
	}
	port := u.Port()
	if port == "" {
		port = defaultPorts[scheme]
	}
	withPort = host + ":" + port
	if port != defaultPorts[scheme] {
		host = withPort
	}
	return host, withPort
}

// matches reports whether an origin is one of those that a normal pattern means.
func (o origin) matches(pattern string) bool {
	if scheme, rest, ok := strings.Cut(pattern, "://"); ok {
		if !match(scheme, o.scheme) {
			return false
		}
		pattern = rest
	}
	return match(pattern, o.host) || match(pattern, o.withPort)
}

// match is path.Match where brackets are those of IPv6.
func match(pattern, s string) bool {
	ok, _ := path.Match(strings.NewReplacer("[", `\[`, "]", `\]`).Replace(pattern), s)
	return ok
}

// allows reports whether the page that makes a request may. Clients that are no page have no origin, and the node's own page has
// the host that it asks.
func (s *Server) allows(r *http.Request) bool {
	from := r.Header.Get("Origin")
	if len(s.cfg.Origins) == 0 || from == "" {
		return true
	}
	o := parseOrigin(from)
	if _, own := hostForms(o.scheme, r.Host); o.scheme != "" && own == o.withPort {
		return true
	}
	return slices.ContainsFunc(s.cfg.Origins, o.matches)
}
