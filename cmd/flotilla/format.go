package main

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/client"
)

// format prints records as a kcat format string says.
type format struct {
	parts []formatPart
	null  string // printed for keys and values that are null
}

// formatPart is a text, or what a letter stands for.
type formatPart struct {
	text   string
	letter byte // 0: the text
}

const formatLetters = "sSRkKtpoTh"

// formatHelp is the part of consume's help about formats.
const formatHelp = `  %s value            %S its length, -1 for null    %R the same, 4 bytes, big-endian
  %k key              %K its length, -1 for null    %h headers: name=value,...
  %t topic            %p partition                  %o offset
  %T timestamp in ms  %% a percent sign             \n \r \t \xHH \NNN a byte`

// parseFormat parses a kcat format string. A letter that kcat does not know is
// an error.
func parseFormat(s string) (*format, error) {
	f := new(format)
	for s != "" {
		text, rest, letter := strings.Cut(s, "%")
		if text != "" {
			text, err := unescape(text)
			if err != nil {
				return nil, err
			}
			f.add(formatPart{text: text})
		}
		s = rest
		switch {
		case !letter:
			return f, nil
		case s == "":
			return nil, fmt.Errorf("%% at the end; write %%%% for a percent sign")
		case s[0] == '%':
			f.add(formatPart{text: "%"})
		case strings.IndexByte(formatLetters, s[0]) >= 0:
			f.add(formatPart{letter: s[0]})
		default:
			return nil, fmt.Errorf("%%%c is not known, only %%%s", []rune(s)[0], strings.Join(strings.Split(formatLetters, ""), " %"))
		}
		s = s[1:]
	}
	return f, nil
}

func (f *format) add(p formatPart) {
	if n := len(f.parts); n > 0 && p.letter == 0 && f.parts[n-1].letter == 0 {
		f.parts[n-1].text += p.text
		return
	}
	f.parts = append(f.parts, p)
}

// append appends a record to dst.
func (f *format) append(dst []byte, r *client.Record) []byte {
	for _, p := range f.parts {
		switch p.letter {
		case 0:
			dst = append(dst, p.text...)
		case 's':
			dst = f.appendBytes(dst, r.Value)
		case 'S':
			dst = strconv.AppendInt(dst, lengthOf(r.Value), 10)
		case 'R':
			dst = binary.BigEndian.AppendUint32(dst, uint32(lengthOf(r.Value)))
		case 'k':
			dst = f.appendBytes(dst, r.Key)
		case 'K':
			dst = strconv.AppendInt(dst, lengthOf(r.Key), 10)
		case 't':
			dst = append(dst, r.Topic...)
		case 'p':
			dst = strconv.AppendInt(dst, int64(r.Partition), 10)
		case 'o':
			dst = strconv.AppendInt(dst, r.Offset, 10)
		case 'T':
			dst = strconv.AppendInt(dst, r.Timestamp.UnixMilli(), 10)
		case 'h':
			dst = appendHeaders(dst, r.Headers)
		default:
			panic(fmt.Sprintf("flotilla: format letter %q", p.letter))
		}
	}
	return dst
}

func (f *format) appendBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, f.null...)
	}
	return append(dst, b...)
}

// lengthOf returns -1 for null.
func lengthOf(b []byte) int64 {
	if b == nil {
		return -1
	}
	return int64(len(b))
}

func appendHeaders(dst []byte, headers []client.Header) []byte {
	for i, h := range headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, h.Key...), '=')
		if h.Value == nil {
			dst = append(dst, "NULL"...)
		}
		dst = append(dst, h.Value...)
	}
	return dst
}
