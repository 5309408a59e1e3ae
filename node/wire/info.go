package wire

import (
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// MaxInfo bounds an Info, in bytes.
const MaxInfo = 1 << 10

// infoDepth is how deep an Info may be nested: it stands within a from within an entry within a list.
const infoDepth = MaxDepth - 1

// An Info is what others see of a user beside the name: a JSON object, as ParseInfo gives it, or "" for none. It is a string so that
// users can be compared.
type Info string

var errInfo = errors.New("it has to be an object of at most 1024 bytes, without the space between its tokens")

// ParseInfo checks an object that somebody else made, which goes to every client as it is. null, or nothing, is none.
func ParseInfo(raw json.RawMessage) (Info, error) {
	s := scanner{b: raw}
	s.space()
	start := s.i
	if start == len(raw) || string(raw[start:]) == "null" {
		return "", nil
	}
	if !utf8.Valid(raw) { // a browser that is sent it drops its connection
		return "", errors.New("it is not valid UTF-8")
	}
	if raw[start] != '{' {
		return "", errInfo
	}
	if bad := s.value(infoDepth); bad != nil {
		return "", errors.New(bad.Message)
	}
	end := s.i
	if s.space(); s.i < len(raw) {
		return "", errInfo
	}
	info := compact(raw[start:end])
	if len(info) > MaxInfo {
		return "", errInfo
	}
	return Info(info), nil
}

// MarshalJSON implements json.Marshaler.
func (i Info) MarshalJSON() ([]byte, error) {
	if i == "" {
		return []byte("null"), nil
	}
	return []byte(i), nil
}

// UnmarshalJSON implements json.Unmarshaler. It checks nothing: a newer server may allow more.
func (i *Info) UnmarshalJSON(b []byte) error {
	if string(b) != "null" {
		*i = Info(compact(b))
	}
	return nil
}

// info leaves the field out if there is no info.
func (o *object) info(i Info) {
	if i != "" {
		o.name("info")
		o.b = append(o.b, i...)
	}
}
