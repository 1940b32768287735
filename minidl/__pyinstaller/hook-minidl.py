from PyInstaller.utils.hooks import collect_data_files

datas = collect_data_files("minidl")
module_collection_mode = "pyz+py"  # compiled code is kept under a stamp of the sources
