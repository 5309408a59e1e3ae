package wire

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"parley/bus/id"
)

// A Request is what a client says in parley.v1. Only the fields of its Op are set.
type Request struct {
	Op  string          // one of the ops that Ops lists
	Req json.RawMessage // a string or number as the client wrote it, for the reply; nil if absent

	Room    string
	Token   string
	Session string
	Name    string
	Named   int64 // when the name was chosen, in ms since 1970; 0 means now
	Text    string
	Key     string
	Kind    string
	Since   *id.ID
	Before  *id.ID
	Limit   *int
	Data    json.RawMessage // without space between its tokens; nil if absent
}

// A field is one that a request may have.
type field uint8

const (
	fieldOp field = iota
	fieldReq
	fieldRoom
	fieldToken
	fieldSession
	fieldName
	fieldNamed
	fieldText
	fieldData
	fieldKey
	fieldKind
	fieldSince
	fieldBefore
	fieldLimit
	fields
)

var fieldNames = [fields]string{
	"op", "req", "room", "token", "session", "name", "named", "text", "data", "key", "kind", "since", "before", "limit",
}

// ops says which fields each op has. A field that an op does not have is ignored like an unknown one.
var ops = []struct {
	name  string
	needs []field
	takes []field
}{
	{"hello", nil, []field{fieldToken, fieldSession, fieldName, fieldNamed}},
	{"join", []field{fieldRoom}, []field{fieldSince, fieldLimit}},
	{"leave", []field{fieldRoom}, nil},
	{"send", []field{fieldRoom}, []field{fieldText, fieldData, fieldKey}},
	{"signal", []field{fieldRoom, fieldKind}, []field{fieldData}},
	{"history", []field{fieldRoom}, []field{fieldBefore, fieldLimit}},
	{"members", []field{fieldRoom}, nil},
	{"ping", nil, nil},
}

// Ops lists the ops that Parse knows.
func Ops() []string {
	var names []string
	for _, op := range ops {
		names = append(names, op.name)
	}
	return names
}

// Parse reads a client's message, whose text may have at most maxText bytes. The Request refers to nothing in frame. With
// an error, its Req is still set where it could be read, so that the error can be tied to the request.
func Parse(frame []byte, maxText int) (r Request, err *Error) {
	raw, err := split(frame)
	req, reqErr := parseReq(raw[fieldReq])
	r.Req = req
	if err != nil {
		return r, err
	}
	if reqErr != nil {
		return r, reqErr
	}
	name, err := str(fieldOp, raw[fieldOp])
	if err != nil {
		return r, err
	}
	for i := range ops {
		op := &ops[i]
		if op.name != string(name) {
			continue
		}
		r.Op = op.name
		for _, f := range op.needs {
			if raw[f] == nil {
				return r, Errorf(BadRequest, "%s needs %q", op.name, fieldNames[f])
			}
			if err := r.set(f, raw[f], maxText); err != nil {
				return r, err
			}
		}
		for _, f := range op.takes {
			if raw[f] == nil {
				continue
			}
			if err := r.set(f, raw[f], maxText); err != nil {
				return r, err
			}
		}
		return r, r.check()
	}
	known := strings.Join(Ops(), ", ")
	if raw[fieldOp] == nil {
		return r, Errorf(BadRequest, `"op" is missing: it is one of %s`, known)
	}
	return r, Errorf(Unsupported, `unknown op "%.32s": known are %s`, name, known)
}

// ParseSaid reads the text and data of a send that comes without its other fields: those are set already, and everything else in
// body is ignored.
func (r *Request) ParseSaid(body []byte, maxText int) *Error {
	raw, err := split(body)
	if err == ErrNotUTF8 {
		return err
	}
	if err != nil {
		return Errorf(BadRequest, "the body has to be a JSON object with text, data or both")
	}
	for _, f := range []field{fieldText, fieldData} {
		if raw[f] == nil {
			continue
		}
		if err := r.set(f, raw[f], maxText); err != nil {
			return err
		}
	}
	return r.check()
}

// CheckKey says what is wrong with an idempotency key: it is at most MaxKey bytes of UTF-8.
func CheckKey(key string) *Error {
	if len(key) > MaxKey {
		return Errorf(BadRequest, "key is %d bytes: at most %d are allowed", len(key), MaxKey)
	}
	if !utf8.ValidString(key) { // in a header it may be anything
		return Errorf(BadRequest, "key is not valid UTF-8")
	}
	return nil
}

// split finds the fields of a message. What was found before an error is returned too; null is the same as absent.
func split(frame []byte) (raw [fields][]byte, err *Error) {
	if !utf8.Valid(frame) {
		return raw, ErrNotUTF8
	}
	s := scanner{b: frame}
	s.space()
	if s.i == len(frame) || frame[s.i] != '{' {
		return raw, Errorf(BadRequest, "a message is one JSON object, such as %s", `{"op":"ping"}`)
	}
	err = s.fields(MaxDepth, func(name, value []byte) {
		if string(value) == "null" {
			value = nil
		}
		if f := fieldOf(name); f < fields {
			raw[f] = value
		}
	})
	if err != nil {
		return raw, err
	}
	s.space()
	if s.i < len(frame) {
		return raw, Errorf(BadRequest, "a message is one JSON object: there is more after byte %d", s.i)
	}
	return raw, nil
}

// fieldOf returns fields if there is none of that name.
func fieldOf(name []byte) field {
	switch string(name) {
	case "op":
		return fieldOp
	case "req":
		return fieldReq
	case "room":
		return fieldRoom
	case "text":
		return fieldText
	case "key":
		return fieldKey
	}
	for f, known := range fieldNames {
		if known == string(name) {
			return field(f)
		}
	}
	return fields
}

func parseReq(raw []byte) (json.RawMessage, *Error) {
	switch {
	case raw == nil:
		return nil, nil
	case raw[0] > '9': // other than a quote, a minus or a digit
		return nil, Errorf(BadRequest, `"req" must be a string or a number`)
	case len(raw) > MaxReq:
		return nil, Errorf(BadRequest, `"req" is %d bytes: at most %d are allowed`, len(raw), MaxReq)
	}
	return slices.Clone(raw), nil
}

// set decodes and checks one field.
func (r *Request) set(f field, raw []byte, maxText int) (err *Error) {
	switch f {
	case fieldData:
		r.Data = compact(raw)
		return nil
	case fieldLimit:
		n, bad := strconv.Atoi(string(raw))
		least := 0
		if r.Op == "history" {
			least = 1
		}
		if bad != nil || n < least || n > MaxPage {
			return Errorf(BadRequest, `"limit" must be a whole number from %d to %d`, least, MaxPage)
		}
		r.Limit = &n
		return nil
	case fieldNamed:
		n, bad := strconv.ParseInt(string(raw), 10, 64)
		if bad != nil || n < 0 {
			return Errorf(BadRequest, `"named" must be a whole number of milliseconds since 1970, as a welcome gives it`)
		}
		r.Named = n
		return nil
	}
	value, err := str(f, raw)
	if err != nil {
		return err
	}
	switch f {
	case fieldRoom:
		r.Room = string(value)
		return CheckRoom(r.Room)
	case fieldName:
		r.Name = string(value)
		return CheckName(r.Name)
	case fieldText:
		r.Text = string(value)
		return checkSize(r.Text, maxText) // which is UTF-8, as the frame is
	case fieldKey:
		r.Key = string(value)
		return CheckKey(r.Key)
	case fieldKind:
		r.Kind = string(value)
		if r.Kind == "" {
			return Errorf(BadRequest, "kind is empty: it is 1 to %d bytes", MaxKind)
		}
		return checkLine("kind", r.Kind, MaxKind)
	case fieldToken:
		r.Token = string(value)
	case fieldSession:
		r.Session = string(value)
	case fieldSince:
		r.Since, err = parseID(f, value)
	case fieldBefore:
		r.Before, err = parseID(f, value)
	}
	return err
}

// check sees to the rules that concern more than one field.
func (r *Request) check() *Error {
	if r.Op == "send" && r.Text == "" && r.Data == nil {
		return Errorf(BadRequest, `send needs "text", "data" or both`)
	}
	return nil
}

func str(f field, raw []byte) ([]byte, *Error) {
	if raw == nil {
		return nil, nil
	}
	if raw[0] != '"' {
		return nil, Errorf(BadRequest, "%q must be a string", fieldNames[f])
	}
	return unquote(raw), nil
}

func parseID(f field, value []byte) (*id.ID, *Error) {
	i, err := id.Parse(string(value))
	if err != nil {
		return nil, Errorf(BadRequest, "%q must be an id: %v", fieldNames[f], err)
	}
	return &i, nil
}

// Append appends the request as JSON: what Parse reads.
func (r *Request) Append(dst []byte) []byte {
	o := object{append(dst, '{')}
	o.str("op", r.Op)
	o.raw("req", r.Req)
	o.strIf("room", r.Room)
	o.strIf("token", r.Token)
	o.strIf("session", r.Session)
	if r.Named != 0 {
		o.int("named", r.Named)
	}
	o.strIf("name", r.Name)
	o.strIf("text", r.Text)
	o.strIf("kind", r.Kind)
	o.raw("data", r.Data)
	o.strIf("key", r.Key)
	if r.Since != nil {
		o.id("since", *r.Since)
	}
	if r.Before != nil {
		o.id("before", *r.Before)
	}
	if r.Limit != nil {
		o.int("limit", int64(*r.Limit))
	}
	return o.end()
}
