# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_ide_supervisor_global_optspecs
    string join \n color= h/help V/version
end

function __fish_ide_supervisor_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_ide_supervisor_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_ide_supervisor_using_subcommand
    set -l cmd (__fish_ide_supervisor_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -s V -l version -d 'Print version'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "demo" -d 'Supervises three small services built into the program, breaks them on purpose, and shows the recovery'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "up" -d 'Runs the services of the configuration file until it is asked to end'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "status" -d 'Shows every service: what it is doing, why, and what happens next'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "top" -d 'Shows services, channels and events live in the whole terminal; keys start, stop and restart'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "start" -d 'Starts services and returns when their processes run'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "stop" -d 'Stops services and returns when nothing of them is left; a second stop kills'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "restart" -d 'Stops and starts services'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "down" -d 'Stops everything, the supervisor included, and returns when nothing is left'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "reload" -d 'Reads the configuration again and changes only what changed'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "logs" -d 'Shows the captured output of a service'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "events" -d 'Shows what happened, oldest first'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "checkpoint" -d 'Takes, lists, shows, verifies or restores checkpoints'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "savepoint" -d 'Named snapshots of every service\'s state, to keep, to carry elsewhere, and to go back to'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "backup" -d 'Copies of the whole database, each of them opened and read before it counts'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "audit" -d 'Lists or verifies the audit trail'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "recovery" -d 'What had to be done to open the database: shows it, or says that it was seen'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "channels" -d 'Shows every channel and its health'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "dead-letters" -d 'Messages that failed for good: lists them, sends them again, or deletes them'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "wrap" -d 'Runs a language server or MCP server for the client on standard input and output, and hides the server\'s crashes from it'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "config" -d 'Writes, checks or describes the configuration file'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "doctor" -d 'Checks this machine, the configuration and the state directory, and says what to do about what it finds'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "completions" -d 'Prints a completion script for a shell'
complete -c ide-supervisor -n "__fish_ide_supervisor_needs_command" -f -a "man" -d 'Prints the manual page, or writes one for every command'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand demo" -l for -d 'How long to run; until its story is told by default' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand demo" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand demo" -l json -d 'Print events as one JSON document a line'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand up" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand up" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand up" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand up" -l detach -d 'Go to the background once every service that starts by itself was started'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand up" -l json -d 'Print events as one JSON document a line'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand up" -l no-guardian -d 'Own the services\' processes in this process instead of in a guardian: when it is killed, what it leaves behind ends with the next start only, and nothing outlives it'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand up" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand status" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand status" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand status" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand status" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand status" -l watch -d 'Show it again at every change and every few seconds, until Ctrl-C'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand top" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand top" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand top" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand start" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand start" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand start" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand start" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand stop" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand stop" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand stop" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand stop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand restart" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand restart" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand restart" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand restart" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand down" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand down" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand down" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand down" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand reload" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand reload" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand reload" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand logs" -s n -l lines -d 'Lines to show' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand logs" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand logs" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand logs" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand logs" -s f -l follow -d 'Go on with what is written from now on, until Ctrl-C'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand logs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand events" -s n -l lines -d 'Stored events to show' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand events" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand events" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand events" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand events" -s f -l follow -d 'Go on with what happens from now on, until Ctrl-C'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand events" -l json -d 'Print one JSON document a line'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and not __fish_seen_subcommand_from create list show verify restore" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and not __fish_seen_subcommand_from create list show verify restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and not __fish_seen_subcommand_from create list show verify restore" -f -a "create" -d 'Takes a checkpoint now and prints its id'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and not __fish_seen_subcommand_from create list show verify restore" -f -a "list" -d 'Lists checkpoints, newest first'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and not __fish_seen_subcommand_from create list show verify restore" -f -a "show" -d 'Shows what a checkpoint holds'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and not __fish_seen_subcommand_from create list show verify restore" -f -a "verify" -d 'Reads a checkpoint in both of its places and checks every hash'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and not __fish_seen_subcommand_from create list show verify restore" -f -a "restore" -d 'Goes back to a checkpoint, after a backup of what is stored now. The supervisor must not run'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from create" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from create" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from create" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from create" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from list" -s n -l lines -d 'Rows to show, the newest' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from list" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from list" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from list" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from show" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from show" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from show" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from verify" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from verify" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from verify" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from verify" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from restore" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from restore" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from restore" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from restore" -l dry-run -d 'Only show what would change'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from restore" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand checkpoint; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -f -a "create" -d 'Makes a savepoint of what is now'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -f -a "list" -d 'Lists savepoints, newest first'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -f -a "show" -d 'Shows what a savepoint holds'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -f -a "diff" -d 'Shows what restoring a savepoint would change'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -f -a "restore" -d 'Goes back to a savepoint, after a backup of what is stored now. The supervisor must not run'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -f -a "export" -d 'Writes a savepoint to a new file'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -f -a "import" -d 'Takes in a file that `export` wrote, here or elsewhere'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and not __fish_seen_subcommand_from create list show diff restore export import delete" -f -a "delete" -d 'Deletes a savepoint'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from create" -l note -d 'What to remember about it' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from create" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from create" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from create" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from create" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from list" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from list" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from list" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from show" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from show" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from show" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from diff" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from diff" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from diff" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from diff" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from restore" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from restore" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from restore" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from restore" -l dry-run -d 'Only show what would change'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from restore" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from export" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from export" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from export" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from export" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from import" -l name -d 'The name it gets; its own by default' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from import" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from import" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from import" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from import" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from delete" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from delete" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from delete" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from delete" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand savepoint; and __fish_seen_subcommand_from delete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and not __fish_seen_subcommand_from create list verify prune restore" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and not __fish_seen_subcommand_from create list verify prune restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and not __fish_seen_subcommand_from create list verify prune restore" -f -a "create" -d 'Takes a backup now: copied, opened again, read, then named'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and not __fish_seen_subcommand_from create list verify prune restore" -f -a "list" -d 'Lists backups, newest first'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and not __fish_seen_subcommand_from create list verify prune restore" -f -a "verify" -d 'Reads backups again and proves what they hold'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and not __fish_seen_subcommand_from create list verify prune restore" -f -a "prune" -d 'Removes backups beyond the newest ones; damaged ones and the only sound one stay'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and not __fish_seen_subcommand_from create list verify prune restore" -f -a "restore" -d 'Goes back to the states of a backup, after a backup of what is stored now. The supervisor must not run'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from create" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from create" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from create" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from create" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from list" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from list" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from list" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from verify" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from verify" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from verify" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from verify" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from prune" -l keep -d 'So many stay' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from prune" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from prune" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from prune" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from prune" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from restore" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from restore" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from restore" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from restore" -l replace-refused -d 'Replace a database that cannot be opened at all by the backup; the refused one is set aside, not deleted'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from restore" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand backup; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and not __fish_seen_subcommand_from list verify" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and not __fish_seen_subcommand_from list verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and not __fish_seen_subcommand_from list verify" -f -a "list" -d 'Lists audit rows, oldest first'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and not __fish_seen_subcommand_from list verify" -f -a "verify" -d 'Checks the whole chain of hashes'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from list" -s n -l lines -d 'Rows to show, the newest' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from list" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from list" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from list" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from verify" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from verify" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from verify" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from verify" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand audit; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and not __fish_seen_subcommand_from show settle" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and not __fish_seen_subcommand_from show settle" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and not __fish_seen_subcommand_from show settle" -f -a "show" -d 'Shows what openings of the database found, passed over, rebuilt or moved aside, the newest first'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and not __fish_seen_subcommand_from show settle" -f -a "settle" -d 'Says that everything `show` shows was seen; a lost end of the database is accepted by that'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from show" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from show" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from show" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from settle" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from settle" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from settle" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from settle" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand recovery; and __fish_seen_subcommand_from settle" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand channels" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand channels" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand channels" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand channels" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand channels" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and not __fish_seen_subcommand_from list requeue purge" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and not __fish_seen_subcommand_from list requeue purge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and not __fish_seen_subcommand_from list requeue purge" -f -a "list" -d 'Lists dead letters, newest first'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and not __fish_seen_subcommand_from list requeue purge" -f -a "requeue" -d 'Sends dead letters again, with their old ids'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and not __fish_seen_subcommand_from list requeue purge" -f -a "purge" -d 'Deletes dead letters'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from list" -l channel -d 'Of this channel only' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from list" -s n -l lines -d 'Rows to show, the newest' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from list" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from list" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from list" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from requeue" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from requeue" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from requeue" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from requeue" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from requeue" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from purge" -l channel -d 'Of this channel only' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from purge" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from purge" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from purge" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from purge" -l all -d 'Of every channel'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from purge" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand dead-letters; and __fish_seen_subcommand_from purge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand wrap" -l protocol -d 'What client and server speak' -r -f -a "lsp\t'The language server protocol'
mcp\t'The Model Context Protocol over standard input and output'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand wrap" -l name -d 'What it is called in messages and in the configuration; the program\'s name by default' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand wrap" -l config -d 'Configuration file whose service of that name says how to run and restart the server; none is needed' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand wrap" -l state-dir -d 'Directory in which `status`, `channels`, `events`, `logs` and `audit` show the server; wrapped servers share it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand wrap" -l silence -d 'How long a server that owes an answer and does nothing may be silent before it is replaced, 2s to 1h; five times as long while it works' -r
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand wrap" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand wrap" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and not __fish_seen_subcommand_from init check schema" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and not __fish_seen_subcommand_from init check schema" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and not __fish_seen_subcommand_from init check schema" -f -a "init" -d 'Writes a commented example; refuses to overwrite a file'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and not __fish_seen_subcommand_from init check schema" -f -a "check" -d 'Checks the whole file and explains the first mistake; nothing is started'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and not __fish_seen_subcommand_from init check schema" -f -a "schema" -d 'Prints the JSON Schema of the file, for completion in editors'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and __fish_seen_subcommand_from init" -l config -d 'File to write' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and __fish_seen_subcommand_from init" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and __fish_seen_subcommand_from init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and __fish_seen_subcommand_from check" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and __fish_seen_subcommand_from check" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and __fish_seen_subcommand_from check" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and __fish_seen_subcommand_from schema" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand config; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand doctor" -l config -d 'Configuration file; by default ide-supervisor.toml in the working directory or above it' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand doctor" -l state-dir -d 'State directory; by default .ide-supervisor beside the configuration file' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand doctor" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand doctor" -l json -d 'Print JSON'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand completions" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand man" -l dir -d 'Directory to write one page for every command to' -r -F
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand man" -l color -d 'When to colour the output' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c ide-supervisor -n "__fish_ide_supervisor_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
