# SPDX-License-Identifier: Apache-2.0
#
# completion.bash - completes `vigil COMMAND --option value` in bash. The build puts the
# tables that the programs print where the marker stands: COMMAND WORD KIND a line, WORD `*`
# for arguments, KIND one of `-`, `file`, `directory`, `any`, or choices split by `|`.

_vigil_table='
@TABLE@
'

# _vigil_words COMMAND: the options of a command, or the commands for "".
_vigil_words() {
    local command word kind
    while read -r command word kind; do
        if [[ -z $1 && -n $command && $command != vigil ]]; then
            printf '%s\n' "$command"
        elif [[ -n $1 && $command == "$1" && $word != '*' ]]; then
            printf '%s\n' "$word"
        fi
    done <<<"$_vigil_table"
}

# _vigil_kind COMMAND WORD
_vigil_kind() {
    local command word kind
    while read -r command word kind; do
        if [[ $command == "$1" && $word == "$2" ]]; then
            printf '%s\n' "$kind"
            return
        fi
    done <<<"$_vigil_table"
}

_vigil() {
    local current=${COMP_WORDS[COMP_CWORD]} before= command= kind=
    ((COMP_CWORD > 0)) && before=${COMP_WORDS[COMP_CWORD - 1]}
    [[ $before == = ]] && before=${COMP_WORDS[COMP_CWORD - 2]}
    [[ $current == = ]] && current=
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "help $(_vigil_words '')
            --help --version" -- "$current")
        return
    fi
    command=${COMP_WORDS[1]}
    if [[ $command == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_vigil_words '')" -- "$current")
        return
    fi
    [[ $before == --* ]] && kind=$(_vigil_kind "$command" "$before")
    if [[ -z $kind || $kind == - ]]; then
        kind=
        if [[ $current == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$(_vigil_words "$command")" -- "$current")
            return
        fi
        kind=$(_vigil_kind "$command" '*')
    fi
    case $kind in
    file) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    directory) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    *'|'*) mapfile -t COMPREPLY < <(compgen -W "${kind//|/ }" -- "$current") ;;
    esac
}
complete -o filenames -F _vigil vigil
