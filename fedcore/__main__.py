from fedcore.cli.main import main

main()
